"""lm-eval's loglikelihood requests get the numbers that transformers gives for the same model."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from process import AT_REST, MODEL, Helexa, call
from transformers import AutoModelForCausalLM, AutoTokenizer

from helexa.store import StoredModel

pytestmark = pytest.mark.real

# A beginning, and an end whose likelihood is asked for, as multiple choice tasks have them.
QUESTIONS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " the city of Ångström"),
    ("Two and two make", " four, and three and three make six."),
    ("x", "y"),
]


class Reference:
    """The demo model in transformers, in fp32, and its tokenizer."""

    def __init__(self, stored: StoredModel) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(stored.path, local_files_only=True)
        self.model = AutoModelForCausalLM.from_pretrained(
            stored.path, dtype=torch.float32, local_files_only=True
        ).eval()

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text)["input_ids"]
        return found

    def scores(self, ids: Sequence[int]) -> tuple[list[float], list[bool]]:
        """Of every token but the first: its log-probability, and whether it is the likeliest."""
        with torch.inference_mode():
            logs = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        told = [float(logs[at, token]) for at, token in enumerate(ids[1:])]
        return told, [int(logs[at].argmax()) == token for at, token in enumerate(ids[1:])]


@pytest.fixture(scope="module")
def reference(demo_model: StoredModel) -> Reference:
    return Reference(demo_model)


def ask(served: Helexa, prompt: Any, **more: Any) -> list[dict[str, Any]]:
    """As lm-eval's local-completions asks; the answers in the order of the prompts."""
    body = {
        "model": MODEL,
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
        **more,
    }
    status, _, answer = call("POST", served.url() + "/v1/completions", body)
    assert status == 200, answer
    return sorted(answer["choices"], key=lambda choice: choice["index"])


def scored(choice: dict[str, Any], begin: int) -> tuple[list[float], list[bool]]:
    """As lm-eval reads them: the tokens from `begin` on, without the one that was generated."""
    told = choice["logprobs"]
    own, tops = told["token_logprobs"][begin:-1], told["top_logprobs"][begin:-1]
    return own, [max(top.values()) == score for score, top in zip(own, tops, strict=True)]


def test_ends_of_texts_are_as_likely_as_transformers_says(
    served: Helexa, reference: Reference
) -> None:
    asked = [(reference.ids(start), reference.ids(start + end)) for start, end in QUESTIONS]
    choices = ask(served, [whole for _, whole in asked])
    assert len(choices) == len(asked)
    for (start, whole), choice in zip(asked, choices, strict=True):
        told, greedy = scored(choice, len(start))
        expected, likeliest = reference.scores(whole)
        assert len(choice["logprobs"]["tokens"]) == len(whole) + 1
        assert told == pytest.approx(expected[len(start) - 1 :], abs=1e-3)
        assert greedy == likeliest[len(start) - 1 :]


def test_texts_are_scored_like_their_token_ids(served: Helexa, reference: Reference) -> None:
    texts = [start + end for start, end in QUESTIONS]
    for text, choice in zip(texts, ask(served, texts), strict=True):
        told, greedy = scored(choice, 1)
        expected, likeliest = reference.scores(reference.ids(text))
        assert told == pytest.approx(expected, abs=1e-3)
        assert greedy == likeliest
        assert choice["text"].startswith(text)


def test_a_text_of_several_chunks_is_scored_to_its_end(
    served: Helexa, reference: Reference
) -> None:
    ids = reference.ids("One, two, three, four, five, and so it goes on and on. " * 40)
    (choice,) = ask(served, ids)
    told, greedy = scored(choice, 1)
    expected, likeliest = reference.scores(ids)
    assert len(ids) > 512
    assert told == pytest.approx(expected, abs=1e-3)
    assert greedy == likeliest


def test_the_token_that_is_generated_is_scored_too(served: Helexa, reference: Reference) -> None:
    ids = reference.ids("The capital of France is")
    (choice,) = ask(served, [ids])
    assert choice["logprobs"]["tokens"][-1] == " Paris"
    expected, (*_, likeliest) = reference.scores([*ids, *reference.ids(" Paris")])
    assert choice["logprobs"]["token_logprobs"][-1] == pytest.approx(expected[-1], abs=1e-3)
    assert likeliest


def test_nothing_is_open_after_all_this(served: Helexa) -> None:
    assert served.status["open"] == AT_REST
