"""Reasoning is closed when its budget is spent, whatever the model would say."""

import json
import random
from collections.abc import Callable

import pytest
from attrs import define, evolve
from constraint_walks import ids_in
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from helexa.conversation import (
    Conversation,
    Json,
    JsonObject,
    ReasoningDelta,
    TextDelta,
    Thinking,
    Tool,
    ToolCallDelta,
    ToolChoice,
)
from helexa.engine.orders import Piece
from helexa.text.answer import AnswerReader
from helexa.text.markup import Markup, markers_of
from helexa.text.prompt import Prompt
from helexa.text.prompter import constrained
from helexa.text.tokenizer import Tokenizer

THINK = Markup("hermes", ("<think>", "</think>"))
SENTENCES = Markup("hermes", ("Here is my thought process:", "Here is my response:"))
HARMONY = Markup("harmony")
OPENED = "<|im_start|>assistant\n<think>\n"
HARMONY_START = "<|start|>assistant"
LONG = "The capital of France is " * 20
PING = Tool("ping", None, None)
Pick = Callable[[list[int]], int]


@pytest.fixture(scope="module", params=["added", "special"])
def tokenizer(request: pytest.FixtureRequest, byte_level_library: Library) -> Tokenizer:
    """Markers are tokens of their own, or only added to the vocabulary; sentences are neither."""
    library = Library.from_str(byte_level_library.to_str())
    markers = {*markers_of(THINK), *markers_of(HARMONY)} - {"<tool_call>"}
    special = request.param == "special"
    library.add_tokens([AddedToken(marker, special=special) for marker in sorted(markers)])
    return Tokenizer.parse(library.to_str().encode())


def asked(budget: int | None, **changes: Json) -> Conversation:
    return Conversation("m", thinking=Thinking(True, budget=budget, shown=True), **changes)


def bound(
    tokenizer: Tokenizer, conversation: Conversation, markup: Markup, prompt: Prompt
) -> Prompt:
    (made,) = constrained(tokenizer, markup, conversation, (prompt,))
    return made


@define
class Answer:
    thought: str = ""
    said: str = ""
    arguments: str = ""
    reasoning_tokens: int = 0
    free: int = 0  # steps at which anything was allowed


def answer(
    tokenizer: Tokenizer,
    conversation: Conversation,
    markup: Markup,
    prompt: Prompt,
    pick: Pick,
    tokens: int = 200,
) -> Answer:
    """What comes of so many tokens, each picked among those allowed; of fewer if none is."""
    prompt = bound(tokenizer, conversation, markup, prompt)
    assert prompt.constraint is not None
    matcher = prompt.constraint.matcher()
    reader = AnswerReader(0, tokenizer, conversation, prompt, markup)
    told, everything = Answer(), list(range(tokenizer.num_ids))
    for _ in range(tokens):
        found = matcher.allowed()
        told.free += found is None
        ids = everything if found is None else ids_in(found[0])
        if not ids:
            break
        matcher.accept(token := pick(ids))
        for event in reader.push(Piece(0, token)):
            match event:
                case ReasoningDelta(_, text):
                    told.thought += text
                case TextDelta(_, text):
                    told.said += text
                case ToolCallDelta(_, _, text):
                    told.arguments += text
    told.reasoning_tokens = reader.reasoning_tokens
    return told


def saying(tokenizer: Tokenizer, text: str) -> Pick:
    """A model that says `text`, and gives up what of it is not allowed."""
    wanted = list(tokenizer.encode(text))

    def pick(ids: list[int]) -> int:
        place = next((place for place, id in enumerate(wanted) if id in ids), None)
        if place is None:
            return ids[0]
        token = wanted[place]
        del wanted[: place + 1]
        return token

    return pick


def babbling(tokenizer: Tokenizer, markup: Markup, seed: int) -> Pick:
    """A model that says anything, markers more often than not."""
    chance = random.Random(seed)
    ids = (tokenizer.token_id(marker) for marker in (*markers_of(markup), "analysis"))
    likely = {id for id in ids if id is not None}

    def pick(ids: list[int]) -> int:
        marked = sorted(likely.intersection(ids))
        return chance.choice(marked if marked and chance.random() < 0.5 else ids)

    return pick


@given(budget=st.integers(0, 30), seed=st.integers(0, 2**32), opened=st.booleans())
def test_no_model_thinks_longer_than_its_budget_and_a_marker(
    budget: int, seed: int, opened: bool, tokenizer: Tokenizer
) -> None:
    pick = babbling(tokenizer, THINK, seed)
    prompt = Prompt((), OPENED if opened else "assistant:")
    told = answer(tokenizer, asked(budget, tools=(PING,)), THINK, prompt, pick)
    assert told.reasoning_tokens <= budget + len(tokenizer.encode("\n</think>"))


@given(budget=st.integers(0, 30), seed=st.integers(0, 2**32))
def test_neither_does_one_that_thinks_on_channels(
    budget: int, seed: int, tokenizer: Tokenizer
) -> None:
    pick = babbling(tokenizer, HARMONY, seed)
    told = answer(tokenizer, asked(budget), HARMONY, Prompt((), HARMONY_START), pick)
    assert told.reasoning_tokens <= budget + len(tokenizer.encode("<|end|>"))


@pytest.mark.parametrize("budget", [1, 7, 50])
@pytest.mark.parametrize("opened", [True, False])
def test_thoughts_are_closed_and_the_answer_goes_on(
    budget: int, opened: bool, tokenizer: Tokenizer
) -> None:
    prompt = Prompt((), OPENED if opened else "assistant:")
    text = LONG if opened else f"<think>{LONG}"
    told = answer(tokenizer, asked(budget), THINK, prompt, saying(tokenizer, text))
    assert LONG.startswith(told.thought.rstrip("\n"))
    assert told.said
    assert told.reasoning_tokens == budget + len(tokenizer.encode("\n</think>"))


def test_a_model_that_closes_its_thoughts_in_time_is_left_alone(tokenizer: Tokenizer) -> None:
    text = f"Paris.</think>\n\nThe capital is Paris. <think> is a tag. {LONG}"
    pick = saying(tokenizer, text)
    num_tokens = len(tokenizer.encode(text))
    told = answer(tokenizer, asked(40), THINK, Prompt((), OPENED), pick, num_tokens)
    assert (told.thought, told.said.rstrip()) == ("Paris.", text[16:].rstrip())
    assert told.free == num_tokens


def test_a_budget_of_nothing_closes_at_once(tokenizer: Tokenizer) -> None:
    told = answer(tokenizer, asked(0), THINK, Prompt((), OPENED), saying(tokenizer, LONG), 20)
    assert told.thought.strip() == ""
    assert LONG.startswith(told.said)


def test_reasoning_that_begins_with_a_sentence_ends_with_one(tokenizer: Tokenizer) -> None:
    pick = saying(tokenizer, f"Here is my thought process: {LONG}")
    told = answer(tokenizer, asked(12), SENTENCES, Prompt((), "assistant:"), pick)
    assert LONG.startswith(told.thought.strip())
    assert told.said.strip()
    assert "response" not in told.thought + told.said


def test_channels_of_thought_are_followed_by_one_that_speaks(tokenizer: Tokenizer) -> None:
    text = (
        f"<|channel|>analysis<|message|>{LONG}<|end|><|start|>assistant<|channel|>analysis"
        "<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Paris."
    )
    prompt, pick = Prompt((), HARMONY_START), saying(tokenizer, text)
    told = answer(tokenizer, asked(9), HARMONY, prompt, pick, 40)
    assert LONG.startswith(told.thought)
    assert told.said.startswith("Paris.")
    assert told.reasoning_tokens == 9 + 1


def test_a_call_on_a_channel_follows_thoughts_that_were_closed(tokenizer: Tokenizer) -> None:
    text = (
        f"<|channel|>analysis<|message|>{LONG}<|end|><|start|>assistant<|channel|>final"
        "commentary to=functions.ping <|constrain|>json<|message|>{}<|call|>"
    )
    forced = asked(9, tools=(PING,), tool_choice=ToolChoice("required", ("ping",)))
    prompt, pick = Prompt((), HARMONY_START), saying(tokenizer, text)
    told = answer(tokenizer, forced, HARMONY, prompt, pick)
    assert LONG.startswith(told.thought)
    assert told.arguments == "{}"


@pytest.mark.parametrize("markup", [THINK, evolve(THINK, tools="glm")])
@pytest.mark.parametrize("seed", range(4))
def test_a_form_begins_when_the_thoughts_are_over(
    markup: Markup, seed: int, tokenizer: Tokenizer
) -> None:
    forced = asked(6, tools=(PING,), tool_choice=ToolChoice("required", ("ping",)))
    pick = babbling(tokenizer, markup, seed)
    told = answer(tokenizer, forced, markup, Prompt((), OPENED), pick, 2000)
    assert json.loads(told.arguments) == {}
    rest_of_character = 3  # bytes at most, which a form insists on
    marker = len(tokenizer.encode("\n</think>"))
    assert told.reasoning_tokens <= 6 + rest_of_character + marker


def test_an_object_is_still_an_object(tokenizer: Tokenizer) -> None:
    held = asked(6, format=JsonObject())
    text = f'{LONG}{{"a": 1}}'
    told = answer(tokenizer, held, THINK, Prompt((), OPENED), saying(tokenizer, text), 60)
    assert told.said.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("conversation", "markup"),
    [
        (asked(None), THINK),
        (asked(5), Markup("hermes")),
        (asked(5, texts=("Once",)), THINK),
    ],
    ids=["no budget", "no reasoning", "a text as it is"],
)
def test_an_answer_without_a_bound_needs_no_matcher(
    conversation: Conversation, markup: Markup, tokenizer: Tokenizer
) -> None:
    assert bound(tokenizer, conversation, markup, Prompt((), OPENED)).constraint is None
