"""The law of streams that pass: the same bytes, however they were cut, and what they tell told once."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Finished,
    Passed,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from helexa.errors import Busy
from helexa.wire import anthropic, openai_chat, openai_completions, openai_responses, sse
from helexa.wire.exchange import Reply, Writer
from helexa.wire.openai_completions.echo import Echo
from helexa.wire.openai_responses.asked import Asked
from helexa.wire.passing import ChatPassage, MessagesPassage, Passage, ResponsesPassage

REPLY = Reply("req_abc", "m", 7)
WRITERS = {
    "chat": lambda: openai_chat.StreamWriter(REPLY, include_usage=True),
    "completions": lambda: openai_completions.request.StreamWriter(REPLY, Echo((), 1, False), True),
    "messages": lambda: anthropic.StreamWriter(REPLY),
    "responses": lambda: openai_responses.StreamWriter(Asked(Conversation("m")), REPLY),
}
PASSAGES: dict[str, type[Passage]] = {
    "chat": ChatPassage,
    "completions": ChatPassage,
    "messages": MessagesPassage,
    "responses": ResponsesPassage,
}

texts = st.text(max_size=20) | st.sampled_from(
    ['"usage":{}', "\n\ndata: [DONE]\n\n", "event: error"]
)
words = st.lists(st.one_of(st.builds(TextDelta, st.just(0), texts)), min_size=1, max_size=20)
cuts = st.lists(st.integers(0, 4000), max_size=12)


def written(dialect: str, said: list[TextDelta]) -> bytes:
    writer: Writer = WRITERS[dialect]()
    usage = Usage(9, len(said), 4)
    events: list[Event] = [Started(9, 4), *said, ChoiceFinished(0, "length"), Finished(usage)]
    return b"".join(map(writer.write, events))


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place for place in places if place < len(data)} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False) if b > a]


@pytest.mark.parametrize("dialect", PASSAGES)
@given(words, cuts)
def test_what_helexa_writes_passes_helexa_byte_for_byte(
    dialect: str, said: list[TextDelta], places: list[int]
) -> None:
    data, passage = written(dialect, said), PASSAGES[dialect]()
    seen = [passage.feed(piece) for piece in pieces(data, places)]
    seen.append(passage.end())
    assert b"".join(each.data for each in seen) == data
    assert all(each.error is None for each in seen)
    events = [event for each in seen for event in each.events]
    assert [type(event) for event in events] == [Started, ChoiceFinished]
    assert events[1] == ChoiceFinished(0, "length")
    assert passage.usage == Usage(9, len(said), 4)
    assert passage.done


@given(st.binary(max_size=200), st.sampled_from([*PASSAGES.values()]))
def test_no_bytes_bring_a_passage_down(data: bytes, kind: type[Passage]) -> None:
    passage = kind()
    for piece in (b"data: ", data, b"\n\n", data):
        passage.feed(piece)
    passage.end()


@pytest.mark.parametrize("dialect", PASSAGES)
def test_an_answer_that_is_cut_off_is_told(dialect: str) -> None:
    data, passage = written(dialect, [TextDelta(0, "a")] * 9), PASSAGES[dialect]()
    seen = passage.feed(data[: data.index(b'"length"')] if dialect == "chat" else data[:-300])
    assert seen.error is None
    error = passage.end().error
    assert error is not None
    assert error.code == "upstream_malformed_response"


@pytest.mark.parametrize("kind", PASSAGES.values())
def test_a_frame_without_end_is_given_up(kind: type[Passage]) -> None:
    passage = kind()
    assert passage.feed(b"data: " + b"x" * sse.MAX_EVENT_BYTES).error is not None


# -- a stream that another server began, and we must end -----------------------------------------------


def begun(dialect: str) -> tuple[Writer, bytes]:
    data = written(dialect, [TextDelta(0, "Hello")])
    begin = data[: data.index(b"Hello")].rindex(b"\n\n") + 2
    writer: Writer = WRITERS[dialect]()
    assert writer.write(Passed(data[:begin])) == data[:begin]
    return writer, data[:begin]


@pytest.mark.parametrize("dialect", PASSAGES)
def test_the_failure_of_another_server_is_told_without_a_second_beginning(dialect: str) -> None:
    writer, _ = begun(dialect)
    told = writer.error(Busy("It is busy."))
    assert told.count(b"data: {") == 1
    assert b"It is busy." in told


def test_the_failure_of_a_response_has_its_id_and_the_next_number() -> None:
    writer, before = begun("responses")
    line = writer.error(Busy("It is busy.")).partition(b"data: ")[2].partition(b"\n")[0]
    failed = orjson.loads(line)
    last = before.rpartition(b"data: ")[2].partition(b"\n")[0]
    assert failed["sequence_number"] == orjson.loads(last)["sequence_number"] + 1
    assert failed["response"]["id"] == REPLY.id("resp_")


def test_a_sign_of_life_in_a_response_of_another_server_is_a_comment() -> None:
    writer, _ = begun("responses")
    assert writer.write(Progress("decode")) == b": decode 0/0\n\n"


def test_other_things_that_are_said_pass_too() -> None:
    writer = anthropic.StreamWriter(REPLY)
    events = [
        Started(1),
        ReasoningDelta(0, "Hm."),
        ToolCallStarted(0, 0, "call_1", "f"),
        ToolCallDelta(0, 0, "{}"),
        ChoiceFinished(0, "tool_calls"),
        Finished(Usage(1, 2)),
    ]
    data, passage = b"".join(map(writer.write, events)), MessagesPassage()
    seen = passage.feed(data)
    assert seen.data == data
    assert ChoiceFinished(0, "tool_calls") in seen.events
