import math
from operator import itemgetter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Finished,
    Json,
    Progress,
    PromptScored,
    Started,
    TextDelta,
    TokenLogprob,
    Usage,
)
from helexa.errors import Busy
from helexa.wire.answer import Collector
from helexa.wire.exchange import Reply
from helexa.wire.openai_completions import read_request

REPLY = Reply("req_1", "m", 1_700_000_000)
USAGE = Usage(3, 2)


def token(text: str | bytes, logprob: float, *top: TokenLogprob) -> TokenLogprob:
    octets = text if isinstance(text, bytes) else text.encode()
    return TokenLogprob(octets.decode("utf-8", "replace"), octets, logprob, top)


# "The sky is" and " blue." after it; of the third token another was likelier.
FIRST = token("The", math.nan)
SKY = token(" sky", -2.0, token(" sky", -2.0))
IS = token(" is", -1.5, token(" was", -0.5))
BLUE = token(" blue", -0.25, token(" blue", -0.25))
DOT = token(".", -0.75, token(".", -0.75))
ANSWER = [
    Started(3),
    PromptScored(0, (FIRST, SKY)),
    PromptScored(0, (IS,)),
    TextDelta(0, " blue", (BLUE,)),
    TextDelta(0, ".", (DOT,)),
    ChoiceFinished(0, "length"),
    Finished(USAGE),
]
UNSCORED = [
    Started(3),
    TextDelta(0, " blue"),
    TextDelta(0, "."),
    ChoiceFinished(0, "stop", "END"),
    Finished(USAGE),
]


def whole(events: list[Event], **asked: Json) -> Json:
    collector = Collector()
    for event in events:
        collector.add(event)
    request = read_request({"model": "m", "prompt": "The sky is"} | asked)
    return orjson.loads(request.whole(collector.answer, REPLY))


def stream(events: list[Event], **asked: Json) -> list[Json]:
    writer = read_request({"model": "m", "prompt": "The sky is"} | asked).writer(REPLY)
    data = b"".join(map(writer.write, events))
    found = [line for line in data.split(b"\n\n") if line and not line.startswith(b":")]
    assert found.pop() == b"data: [DONE]"
    return [orjson.loads(frame.removeprefix(b"data: ")) for frame in found]


def joined(frames: list[Json], index: int = 0) -> Json:
    """The choice that the chunks of a stream make up."""
    choices = [each for frame in frames for each in frame["choices"] if each["index"] == index]
    scored = [each["logprobs"] for each in choices if each["logprobs"]]
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return {
        "text": "".join(each["text"] for each in choices),
        "finish_reason": choices[-1]["finish_reason"],
        "logprobs": {name: [x for each in scored for x in each[name]] for name in names},
    }


# -- plain -------------------------------------------------------------------------------------------


def test_a_whole_answer_is_what_the_sdk_expects() -> None:
    completion = Completion.model_validate(whole(UNSCORED))
    (choice,) = completion.choices
    assert (completion.id, completion.object, choice.text) == (
        "cmpl-1",
        "text_completion",
        " blue.",
    )
    assert (choice.finish_reason, choice.stop_reason) == ("stop", "END")
    assert choice.logprobs is None
    assert completion.usage.total_tokens == 5


def test_a_stream_says_the_same_and_ends_with_the_usage() -> None:
    frames = stream(UNSCORED)
    chunks = [Completion.model_validate(frame) for frame in frames if "finish_reason" in frame]
    assert all(chunk.object == "text_completion" for chunk in chunks)
    assert joined(frames)["text"] == " blue."
    assert [frame["choices"][0]["finish_reason"] for frame in frames] == [None, None, "stop"]
    assert [("usage" in frame) for frame in frames] == [False, False, True]


def test_the_usage_has_a_chunk_of_its_own_when_it_is_asked_for() -> None:
    *_, finish, usage = stream(UNSCORED, stream_options={"include_usage": True})
    assert "usage" not in finish
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 5)


def test_signs_of_life_are_comments_and_an_error_ends_the_stream() -> None:
    writer = read_request({"model": "m", "prompt": "a"}).writer(REPLY)
    assert writer.write(Progress("queued", 1, 4)) == b": queued 1/4\n\n"
    frame, done, _ = writer.error(Busy("full")).split(b"\n\n")
    assert orjson.loads(frame.removeprefix(b"data: "))["error"]["code"] == "rate_limit_exceeded"
    assert done == b"data: [DONE]"


# -- echo ----------------------------------------------------------------------------------------------


def test_an_echo_begins_with_the_text_of_the_prompt() -> None:
    assert whole(UNSCORED, echo=True)["choices"][0]["text"] == "The sky is blue."
    assert joined(stream(UNSCORED, echo=True))["text"] == "The sky is blue."


def test_the_echo_of_token_ids_is_the_text_of_the_tokens() -> None:
    for asked in ({"logprobs": 1}, {}):
        choice = whole(ANSWER, echo=True, prompt=[1, 2, 3], **asked)["choices"][0]
        assert choice["text"] == "The sky is blue."
        assert (choice["logprobs"] is None) == (not asked)


def test_each_answer_echoes_its_own_text() -> None:
    events = [
        *(TextDelta(choice, "!") for choice in range(4)),
        *(ChoiceFinished(choice, "stop") for choice in range(4)),
        Finished(USAGE),
    ]
    asked = {"prompt": ["a", "b"], "n": 2, "echo": True}
    texts = [choice["text"] for choice in whole(events, **asked)["choices"]]
    assert texts == ["a!", "a!", "b!", "b!"]
    assert [joined(stream(events, **asked), i)["text"] for i in range(4)] == texts


def test_an_answer_without_a_word_still_echoes() -> None:
    events = [Started(3), ChoiceFinished(0, "stop"), Finished(USAGE)]
    assert joined(stream(events, echo=True))["text"] == "The sky is"


# -- scores --------------------------------------------------------------------------------------------

ECHOED = {
    "tokens": ["The", " sky", " is", " blue", "."],
    "token_logprobs": [None, -2.0, -1.5, -0.25, -0.75],
    "top_logprobs": [
        None,
        {" sky": -2.0},
        {" was": -0.5, " is": -1.5},
        {" blue": -0.25},
        {".": -0.75},
    ],
    "text_offset": [0, 3, 7, 10, 15],
}


@pytest.mark.parametrize("prompt", ["The sky is", [1, 2, 3]])
def test_scores_stand_side_by_side_from_the_first_token_of_the_prompt_on(prompt: Json) -> None:
    asked = {"echo": True, "logprobs": 1, "prompt": prompt}
    (choice,) = whole(ANSWER, **asked)["choices"]
    assert choice["logprobs"] == ECHOED
    streamed = joined(stream(ANSWER, **asked))
    assert (streamed["text"], streamed["logprobs"]) == (choice["text"], ECHOED)


def test_without_an_echo_only_the_answer_is_scored() -> None:
    events = [event for event in ANSWER if not isinstance(event, PromptScored)]
    (choice,) = whole(events, logprobs=1)["choices"]
    assert choice["logprobs"]["tokens"] == [" blue", "."]
    assert choice["logprobs"]["text_offset"] == [0, 5]
    assert joined(stream(events, logprobs=1))["logprobs"] == choice["logprobs"]
    assert whole(events)["choices"][0]["logprobs"] is None


def test_what_the_tokens_have_before_the_text_stands_at_its_beginning() -> None:
    prompt = (token("<s>", math.nan), token("The", -1), SKY, IS)
    events = [Started(4), PromptScored(0, prompt), *ANSWER[3:]]
    (choice,) = whole(events, echo=True, logprobs=0)["choices"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 3, 7, 10, 15]
    assert choice["text"] == "The sky is blue."


def test_tokens_that_are_no_whole_characters_stay_apart() -> None:
    half = token(b"\xe2\x82", -1.0, token(b"\xe2\x82", -1.0), token(b"\xe2\x83", -2.0))
    rest = token(b"\xac", -0.5)
    events = [TextDelta(0, "€", (half, rest)), ChoiceFinished(0, "stop"), Finished(USAGE)]
    (choice,) = whole(events, logprobs=2)["choices"]
    assert choice["logprobs"]["tokens"] == ["bytes:\\xe2\\x82", "bytes:\\xac"]
    assert choice["logprobs"]["top_logprobs"][0] == {"bytes:\\xe2\\x82": -1, "bytes:\\xe2\\x83": -2}
    assert choice["logprobs"]["text_offset"] == [0, 0]


def test_a_probability_of_zero_is_still_a_number() -> None:
    gone = token("x", -math.inf, token("x", -math.inf))
    events = [TextDelta(0, "x", (gone,)), ChoiceFinished(0, "stop"), Finished(USAGE)]
    (choice,) = whole(events, logprobs=1)["choices"]
    assert choice["logprobs"]["token_logprobs"] == [-9999.0]
    assert choice["logprobs"]["top_logprobs"] == [{"x": -9999.0}]


# -- the evaluation harness ------------------------------------------------------------------------------


def loglikelihoods(answer: Json, context_lengths: list[int]) -> list[tuple[float, bool]]:
    """What lm-eval makes of an answer: the sum over the continuation, without the generated token, and
    whether each token of it was the likeliest."""
    found = []
    choices = sorted(answer["choices"], key=itemgetter("index"))
    for choice, begin in zip(choices, context_lengths, strict=True):
        scores = choice["logprobs"]["token_logprobs"][begin:-1]
        tops = choice["logprobs"]["top_logprobs"][begin:-1]
        greedy = all(score == max(top.values()) for score, top in zip(scores, tops, strict=True))
        found.append((sum(scores), greedy))
    return found


tokens = st.builds(
    token,
    st.text(max_size=3) | st.binary(min_size=1, max_size=3),
    st.floats(-50, 0),
    st.builds(token, st.text(max_size=3) | st.binary(min_size=1, max_size=3), st.floats(-50, 0)),
)


@given(st.lists(st.lists(tokens, min_size=2, max_size=6), min_size=1, max_size=3), st.data())
def test_the_harness_reads_the_scores_that_were_given(
    prompts: list[list[TokenLogprob]], data: st.DataObject
) -> None:
    events: list[Event] = [Started(9)]
    for choice, scored in enumerate(prompts):
        first = TokenLogprob(scored[0].token, scored[0].bytes, math.nan)
        events += [
            PromptScored(choice, (first, *scored[1:])),
            TextDelta(choice, "x", (token("x", -0.5, token("y", -0.1)),)),
            ChoiceFinished(choice, "length"),
        ]
    begins = [data.draw(st.integers(1, len(scored) - 1)) for scored in prompts]
    ids = [list(range(1, len(scored) + 1)) for scored in prompts]
    asked = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    found = loglikelihoods(whole([*events, Finished(USAGE)], **asked), begins)
    for (total, greedy), scored, begin in zip(found, prompts, begins, strict=True):
        continuation = scored[begin:]
        assert total == sum(each.logprob for each in continuation)
        assert greedy == all(each.top[0].logprob <= each.logprob for each in continuation)
