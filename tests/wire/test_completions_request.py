from pathlib import Path

import orjson
import pytest
from chat_strategies import json_values
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Conversation, Json, JsonSchema, Regex
from helexa.errors import InvalidRequest, MissingModelField
from helexa.wire.fields import parse_json
from helexa.wire.openai_completions import CompletionRequest, read_request

RECORDED = Path(__file__).parent / "recorded" / "completions"
ONCE = {"model": "m", "prompt": "Once upon a time"}


def read(**fields: Json) -> CompletionRequest:
    return read_request(parse_json(orjson.dumps(ONCE | fields)))


def conversation(**fields: Json) -> Conversation:
    return read(**fields).conversation


# -- what is read ------------------------------------------------------------------------------------


def test_the_smallest_request_has_openai_s_defaults() -> None:
    request = read()
    assert (request.stream, request.include_usage, request.echo) == (False, False, False)
    assert request.conversation == Conversation("m", texts=("Once upon a time",), max_tokens=16)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        ([2.0, 1], ((2, 1),)),
        (["a", [1]], ("a", (1,))),
        ([0, 2**31 - 1], ((0, 2**31 - 1),)),
    ],
)
def test_a_prompt_is_text_or_token_ids_one_or_many(prompt: Json, texts: tuple) -> None:
    assert conversation(prompt=prompt).texts == texts


def test_every_text_gets_n_answers() -> None:
    assert conversation(prompt=["a", "b"], n=3).num_answers == 6


def test_sampling_is_read_as_in_chats_and_logprobs_are_a_number() -> None:
    found = conversation(temperature=0, seed=1234, stop=["\n\n"], logprobs=5, min_p=0.1)
    assert (found.sampling.temperature, found.sampling.seed) == (0, 1234)
    assert (found.sampling.stop, found.sampling.top_logprobs) == (("\n\n",), 5)
    assert found.prompt_logprobs is None


def test_the_prompt_is_scored_where_it_is_echoed() -> None:
    assert conversation(echo=True, logprobs=1).prompt_logprobs == 1
    assert conversation(echo=True, logprobs=0).prompt_logprobs == 0
    assert conversation(echo=True).prompt_logprobs is None
    assert conversation(logprobs=1).prompt_logprobs is None


def test_an_echo_of_token_ids_needs_their_scores_for_their_text() -> None:
    found = conversation(echo=True, prompt=[[1, 2]])
    assert found.prompt_logprobs == 0
    assert found.sampling.top_logprobs is None


def test_the_one_token_after_a_scored_text_is_never_left_out() -> None:
    asked = {"echo": True, "logprobs": 1}
    assert conversation(**asked, max_tokens=1).sampling.ignore_eos
    assert not conversation(**asked, max_tokens=2).sampling.ignore_eos
    assert not conversation(echo=True, prompt=[1], max_tokens=1).sampling.ignore_eos


def test_the_form_of_the_answer_can_be_asked_for() -> None:
    assert conversation(guided_regex="a+").format == Regex("a+")
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    assert conversation(response_format=wanted).format == JsonSchema("n", {})


def test_null_is_the_same_as_leaving_a_field_out() -> None:
    names = ["suffix", "max_tokens", "n", "best_of", "logprobs", "echo", "stream", "stop", "user"]
    assert read(**dict.fromkeys(names)) == read()


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": ""},
        {"best_of": 1},
        {"user": "me", "unknown": [1]},
        {"stream_options": {"continuous_usage_stats": True}},
    ],
    ids=str,
)
def test_what_changes_nothing_is_accepted(fields: dict[str, Json]) -> None:
    assert read(**fields) == read()


def test_what_the_harness_asks_for_a_loglikelihood_is_read() -> None:
    """The request that lm-eval's local-completions makes."""
    request = read(
        prompt=[[504, 3575, 282], [504, 3575]],
        temperature=0,
        max_tokens=1,
        logprobs=1,
        seed=1234,
        echo=True,
    )
    assert request.echo
    assert request.conversation.texts == ((504, 3575, 282), (504, 3575))
    assert request.conversation.prompt_logprobs == 1


# -- what is refused ---------------------------------------------------------------------------------


def test_a_request_without_a_model_is_told_so() -> None:
    with pytest.raises(MissingModelField):
        read(model=None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 3]}, "prompt[1]"),
        ({"prompt": [None]}, "prompt[0]"),
        ({"prompt": [{}]}, "prompt[0]"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]"),
        ({"prompt": [[1, -1]]}, "prompt[0][1]"),
        ({"prompt": [1, 2**31]}, "prompt[1]"),
        ({"prompt": [1, 1.5]}, "prompt[1]"),
        ({"prompt": [1, True]}, "prompt[1]"),
        ({"prompt": [1, [2]]}, "prompt[1]"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": [1] * (2**20 + 1)}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"suffix": 3}, "suffix"),
        ({"n": 9}, "n"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": "yes"}, "echo"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": "hot"}, "temperature"),
        ({"guided_regex": 3}, "guided_regex"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_path(fields: dict[str, Json], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param


FIELDS = [
    *ONCE,
    "suffix",
    "n",
    "best_of",
    "logprobs",
    "echo",
    "stop",
    "stream_options",
    "max_tokens",
]


def refused_at(body: Json) -> str | None:
    try:
        read_request(body)
    except InvalidRequest as error:
        return error.param
    return None


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_whatever_is_sent_is_read_or_refused_by_its_path(fields: dict[str, Json]) -> None:
    param = refused_at(ONCE | fields)
    assert param is None or param.split("[")[0].split(".")[0] in fields


def test_what_the_openai_sdk_sends_is_read() -> None:
    request = read_request(parse_json((RECORDED / "openai_python.json").read_bytes()))
    assert request.conversation.texts == ("hi",)
    assert request.conversation.max_tokens == 3
