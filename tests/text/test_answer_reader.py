from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import ChoiceFinished, FinishReason, TextDelta, TokenLogprob
from helexa.engine.orders import Piece
from helexa.text.answer import AnswerEvent, AnswerReader
from helexa.text.detokenize import decode
from helexa.text.tokenizer import Tokenizer


def pieces_of(
    ids: Sequence[int], finish: FinishReason = "length", scored: bool = False
) -> list[Piece]:
    """The tokens as a device tells of them, the last with its `finish`."""
    last = len(ids) - 1
    score = {"logprob": -0.5, "top": ((ids[0], -0.5),)} if scored else {}
    return [Piece(1, id, finish if i == last else None, **score) for i, id in enumerate(ids)]


def read(reader: AnswerReader, pieces: Iterable[Piece]) -> list[AnswerEvent]:
    return [event for piece in pieces for event in reader.push(piece)]


def text_of(events: list[AnswerEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def logprobs_of(events: list[AnswerEvent]) -> list[TokenLogprob]:
    return [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]


def test_an_answer_is_its_text_and_its_end(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("The capital 😀")
    reader = AnswerReader(3, byte_level)
    events = read(reader, pieces_of(ids))
    assert text_of(events) == "The capital 😀"
    assert events[-1] == ChoiceFinished(3, "length")
    assert all(event.choice == 3 for event in events)
    assert reader.completion_tokens == len(ids)
    assert not reader.stopped


def test_a_stop_id_is_counted_but_is_no_text(byte_level: Tokenizer) -> None:
    ids = [*byte_level.encode("Paris"), byte_level.token_id("<tool_call>")]
    reader = AnswerReader(0, byte_level)
    events = read(reader, pieces_of(ids, "stop", scored=True))
    assert text_of(events) == "Paris"
    assert len(logprobs_of(events)) == len(ids) - 1
    assert events[-1] == ChoiceFinished(0, "stop")
    assert reader.completion_tokens == len(ids)


def test_a_stop_string_ends_the_answer_and_says_so(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("Paris END and more")
    reader = AnswerReader(0, byte_level, ("END",))
    events = read(reader, pieces_of(ids))
    assert text_of(events) == "Paris "
    assert events[-1] == ChoiceFinished(0, "stop", "END")
    assert reader.stopped
    assert reader.completion_tokens < len(ids)


def test_a_stop_string_that_only_began_is_told(byte_level: Tokenizer) -> None:
    reader = AnswerReader(0, byte_level, ("END.",))
    events = read(reader, pieces_of(byte_level.encode("the END")))
    assert text_of(events) == "the END"
    assert events[-1] == ChoiceFinished(0, "length")


def test_a_stop_string_in_the_last_token_still_counts(byte_level: Tokenizer) -> None:
    events = read(AnswerReader(0, byte_level, ("END",)), pieces_of(byte_level.encode("the END")))
    assert events[-1] == ChoiceFinished(0, "stop", "END")


def test_a_character_that_is_never_completed_is_told_as_such(byte_level: Tokenizer) -> None:
    letters = {byte_level.token_bytes(id): id for id in range(300)}
    events = read(AnswerReader(0, byte_level), pieces_of([letters[b"a"], letters[b"\xf0"]]))
    assert text_of(events) == "a\ufffd"


def test_logprobs_tell_the_token_its_bytes_and_its_rivals(byte_level: Tokenizer) -> None:
    letters = {byte_level.token_bytes(id): id for id in range(300)}
    piece = Piece(1, letters[b"\xf0"], None, -0.25, ((letters[b"a"], -1.0), (letters[b"b"], -2.0)))
    (delta,) = AnswerReader(0, byte_level).push(piece)
    (found,) = delta.logprobs
    assert delta.text == ""
    assert (found.token, found.bytes, found.logprob) == ("\ufffd", b"\xf0", -0.25)
    assert [(other.token, other.logprob) for other in found.top] == [("a", -1.0), ("b", -2.0)]


def test_the_logprobs_of_a_stop_string_are_left_out(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("Paris END")
    events = read(AnswerReader(0, byte_level, ("END",)), pieces_of(ids, scored=True))
    told = b"".join(token.bytes for token in logprobs_of(events)).decode()
    assert told.startswith("Paris")
    assert "END" not in told


def test_a_token_comes_no_sooner_than_its_text(byte_level: Tokenizer) -> None:
    reader = AnswerReader(0, byte_level, ("END.",))
    told, scored = "", b""
    for piece in pieces_of(byte_level.encode("the END of it"), scored=True):
        events = reader.push(piece)
        told += text_of(events)
        scored += b"".join(token.bytes for token in logprobs_of(events))
        assert scored.decode() == told


def test_an_answer_that_continues_a_text_keeps_its_first_space(pieces: Tokenizer) -> None:
    ids = pieces.encode("Paris")
    assert text_of(read(AnswerReader(0, pieces), pieces_of(ids))) == "Paris"
    assert text_of(read(AnswerReader(0, pieces, continues=True), pieces_of(ids))) == " Paris"


@given(
    ids=st.lists(st.integers(0, 410), min_size=1, max_size=30),
    stops=st.lists(st.text("aeT. ", min_size=1, max_size=3), max_size=3),
    finish=st.sampled_from(["stop", "length"]),
    scored=st.booleans(),
)
def test_any_answer_is_its_text_up_to_a_stop_string(
    byte_level: Tokenizer, ids: list[int], stops: list[str], finish: FinishReason, scored: bool
) -> None:
    reader = AnswerReader(0, byte_level, tuple(stops))
    events = read(reader, pieces_of(ids, finish, scored))
    whole = decode(byte_level, ids if finish == "length" else ids[:-1])
    end = events[-1]
    assert [event for event in events if isinstance(event, ChoiceFinished)] == [end]
    if end.stop_sequence is None:
        assert text_of(events) == whole
        assert end.reason == finish
        assert len(logprobs_of(events)) == scored * (len(ids) - (finish == "stop"))
    else:
        assert whole.startswith(text_of(events) + end.stop_sequence)
        assert not any(stop in text_of(events) for stop in stops)


@pytest.mark.parametrize("stops", [(), ("END",)])
def test_nothing_comes_after_the_end(byte_level: Tokenizer, stops: tuple[str, ...]) -> None:
    reader = AnswerReader(0, byte_level, stops)
    pieces = pieces_of(byte_level.encode("the END"))
    read(reader, pieces)
    assert read(reader, pieces) == []
