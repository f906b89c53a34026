from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    FinishReason,
    Message,
    ReasoningDelta,
    Sampling,
    Text,
    TextDelta,
    Thinking,
    TokenLogprob,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
    ToolChoice,
)
from helexa.engine.orders import Piece
from helexa.text.answer import AnswerEvent, AnswerReader
from helexa.text.detokenize import decode
from helexa.text.markup import Markup
from helexa.text.prompt import Prompt
from helexa.text.tokenizer import Tokenizer

ASKED = (Message("user", (Text("Hi"),)),)


def reader_of(
    tokenizer: Tokenizer, *stops: str, choice: int = 0, continues: bool = False
) -> AnswerReader:
    """Of an answer without any markup."""
    conversation = Conversation("m", ASKED, sampling=Sampling(stop=stops))
    return AnswerReader(choice, tokenizer, conversation, Prompt((), "", continues), Markup())


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
    reader = reader_of(byte_level, choice=3)
    events = read(reader, pieces_of(ids))
    assert text_of(events) == "The capital 😀"
    assert events[-1] == ChoiceFinished(3, "length")
    assert all(event.choice == 3 for event in events)
    assert reader.completion_tokens == len(ids)
    assert not reader.stopped


def test_a_stop_id_is_counted_but_is_no_text(byte_level: Tokenizer) -> None:
    ids = [*byte_level.encode("Paris"), byte_level.token_id("<tool_call>")]
    reader = reader_of(byte_level)
    events = read(reader, pieces_of(ids, "stop", scored=True))
    assert text_of(events) == "Paris"
    assert len(logprobs_of(events)) == len(ids) - 1
    assert events[-1] == ChoiceFinished(0, "stop")
    assert reader.completion_tokens == len(ids)


def test_a_stop_string_ends_the_answer_and_says_so(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("Paris END and more")
    reader = reader_of(byte_level, "END")
    events = read(reader, pieces_of(ids))
    assert text_of(events) == "Paris "
    assert events[-1] == ChoiceFinished(0, "stop", "END")
    assert reader.stopped
    assert reader.completion_tokens < len(ids)


def test_a_stop_string_that_only_began_is_told(byte_level: Tokenizer) -> None:
    reader = reader_of(byte_level, "END.")
    events = read(reader, pieces_of(byte_level.encode("the END")))
    assert text_of(events) == "the END"
    assert events[-1] == ChoiceFinished(0, "length")


def test_a_stop_string_in_the_last_token_still_counts(byte_level: Tokenizer) -> None:
    events = read(reader_of(byte_level, "END"), pieces_of(byte_level.encode("the END")))
    assert events[-1] == ChoiceFinished(0, "stop", "END")


def test_a_character_that_is_never_completed_is_told_as_such(byte_level: Tokenizer) -> None:
    letters = {byte_level.token_bytes(id): id for id in range(300)}
    events = read(reader_of(byte_level), pieces_of([letters[b"a"], letters[b"\xf0"]]))
    assert text_of(events) == "a\ufffd"


def test_a_stop_string_is_found_though_its_characters_come_byte_by_byte(
    byte_level: Tokenizer,
) -> None:
    letters = {byte_level.token_bytes(id): id for id in range(300)}
    ids = [letters[bytes([byte])] for byte in "né!".encode()]
    events = read(reader_of(byte_level, "é"), pieces_of(ids))
    assert text_of(events) == "n"
    assert events[-1] == ChoiceFinished(0, "stop", "é")


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_an_answer_that_ends_inside_of_a_character_tells_what_there_is(
    byte_level: Tokenizer, finish: FinishReason
) -> None:
    letters = {byte_level.token_bytes(id): id for id in range(300)}
    ids = [letters[b"a"], letters[b"\xc3"]]
    if finish == "stop":
        ids.append(byte_level.token_id("<|end|>") or 0)
    events = read(reader_of(byte_level, "é"), pieces_of(ids, finish))
    assert text_of(events) == "a\ufffd"
    assert events[-1] == ChoiceFinished(0, finish, None)


def test_logprobs_tell_the_token_its_bytes_and_its_rivals(byte_level: Tokenizer) -> None:
    letters = {byte_level.token_bytes(id): id for id in range(300)}
    piece = Piece(1, letters[b"\xf0"], None, -0.25, ((letters[b"a"], -1.0), (letters[b"b"], -2.0)))
    (delta,) = reader_of(byte_level).push(piece)
    (found,) = delta.logprobs
    assert delta.text == ""
    assert (found.token, found.bytes, found.logprob) == ("\ufffd", b"\xf0", -0.25)
    assert [(other.token, other.logprob) for other in found.top] == [("a", -1.0), ("b", -2.0)]


def test_the_logprobs_of_a_stop_string_are_left_out(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("Paris END")
    events = read(reader_of(byte_level, "END"), pieces_of(ids, scored=True))
    told = b"".join(token.bytes for token in logprobs_of(events)).decode()
    assert told.startswith("Paris")
    assert "END" not in told


def test_a_token_comes_no_sooner_than_its_text(byte_level: Tokenizer) -> None:
    reader = reader_of(byte_level, "END.")
    told, scored = "", b""
    for piece in pieces_of(byte_level.encode("the END of it"), scored=True):
        events = reader.push(piece)
        told += text_of(events)
        scored += b"".join(token.bytes for token in logprobs_of(events))
        assert scored.decode() == told


def test_an_answer_that_continues_a_text_keeps_its_first_space(pieces: Tokenizer) -> None:
    ids = pieces.encode("Paris")
    assert text_of(read(reader_of(pieces), pieces_of(ids))) == "Paris"
    assert text_of(read(reader_of(pieces, continues=True), pieces_of(ids))) == " Paris"


@given(
    ids=st.lists(st.integers(0, 410), min_size=1, max_size=30),
    stops=st.lists(st.text("aeT. ", min_size=1, max_size=3), max_size=3),
    finish=st.sampled_from(["stop", "length"]),
    scored=st.booleans(),
)
def test_any_answer_is_its_text_up_to_a_stop_string(
    byte_level: Tokenizer, ids: list[int], stops: list[str], finish: FinishReason, scored: bool
) -> None:
    reader = reader_of(byte_level, *stops)
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
    reader = reader_of(byte_level, *stops)
    pieces = pieces_of(byte_level.encode("the END"))
    read(reader, pieces)
    assert read(reader, pieces) == []


# -- answers with markup ---------------------------------------------------------------------------

PING = Tool("ping", None, {})
CALL = '<tool_call>{"name": "ping", "arguments": {"a": 1}}</tool_call>'
THINKS = Markup("hermes", ("<think>", "</think>"))


def marked(
    tokenizer: Tokenizer,
    *,
    markup: Markup = THINKS,
    tools: tuple[Tool, ...] = (PING,),
    choice: ToolChoice = ToolChoice(),  # noqa: B008
    shown: bool = True,
    prompt: str = "",
    stops: tuple[str, ...] = (),
) -> AnswerReader:
    conversation = Conversation(
        "m",
        ASKED,
        tools=tools,
        tool_choice=choice,
        thinking=Thinking(shown=shown),
        sampling=Sampling(stop=stops),
    )
    return AnswerReader(2, tokenizer, conversation, Prompt((), prompt), markup)


def kinds(events: list[AnswerEvent]) -> list[object]:
    """The events in order, neighbours of one kind as one text."""
    found: list[object] = []
    for event in events:
        match event:
            case TextDelta(_, text) | ReasoningDelta(_, text) | ToolCallDelta(_, _, text):
                kind = type(event).__name__
                if found and isinstance(found[-1], tuple) and found[-1][0] == kind:
                    found[-1] = (kind, found[-1][1] + text)
                else:
                    found.append((kind, text))
            case ToolCallStarted(_, index, _, name):
                found.append((index, name))
            case ChoiceFinished(_, reason, stop):
                found.append((reason, stop))
    return found


def stopped(tokenizer: Tokenizer, text: str, scored: bool = False) -> list[Piece]:
    """The text, and the token that ends an answer."""
    ids = [*tokenizer.encode(text), tokenizer.token_id("<|end|>")]
    return pieces_of(ids, "stop", scored)


def test_reasoning_text_and_calls_become_their_events(byte_level: Tokenizer) -> None:
    reader = marked(byte_level)
    pieces = stopped(byte_level, f"<think>\nHm.\n</think>\n\nI ask.\n{CALL}\n{CALL}")
    events = read(reader, pieces)
    assert kinds(events) == [
        ("ReasoningDelta", "Hm."),
        ("TextDelta", "I ask."),
        *((0, "ping"), ("ToolCallDelta", '{"a": 1}')),
        *((1, "ping"), ("ToolCallDelta", '{"a": 1}')),
        ("tool_calls", None),
    ]
    assert all(event.choice == 2 for event in events)
    ids = [event.id for event in events if isinstance(event, ToolCallStarted)]
    assert len(set(ids)) == 2
    assert all(len(id) == 29 and id.startswith("call_") for id in ids)
    assert reader.completion_tokens == len(pieces)
    assert not reader.stopped


@pytest.mark.parametrize("shown", [True, False])
def test_reasoning_is_counted_whether_it_is_shown_or_not(
    byte_level: Tokenizer, shown: bool
) -> None:
    reader = marked(byte_level, shown=shown, prompt="<think>\n")
    thought, rest = byte_level.encode("Hm, the capital.</think>"), byte_level.encode("Paris")
    events = read(reader, pieces_of([*thought, *rest]))
    assert any(isinstance(event, ReasoningDelta) for event in events) is shown
    assert text_of(events) == "Paris"
    assert reader.reasoning_tokens == len(thought)


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_call_that_breaks_off_is_told_as_far_as_it_came(
    byte_level: Tokenizer, finish: FinishReason
) -> None:
    ids = byte_level.encode('<tool_call>{"name": "ping", "arguments": {"a": [1, 2')
    events = read(marked(byte_level), pieces_of([*ids, ids[0]], finish)[:-1])
    events += read(reader := marked(byte_level), pieces_of(ids))
    assert kinds(events)[-3:] == [
        (0, "ping"),
        ("ToolCallDelta", '{"a": [1, 2'),
        ("length", None),
    ]
    assert not reader.stopped


def test_a_call_that_the_model_ends_too_soon_is_for_the_client_to_explain(
    byte_level: Tokenizer,
) -> None:
    pieces = stopped(byte_level, '<tool_call>{"name": "ping", "arguments": {"a": [1, 2')
    assert kinds(read(marked(byte_level), pieces))[-1] == ("tool_calls", None)


def test_a_block_that_is_no_call_is_text_and_a_plain_stop(byte_level: Tokenizer) -> None:
    events = read(marked(byte_level), stopped(byte_level, "<tool_call>no</tool_call>"))
    assert kinds(events) == [("TextDelta", "<tool_call>no</tool_call>"), ("stop", None)]


@pytest.mark.parametrize(("tools", "choice"), [((), ToolChoice()), ((PING,), ToolChoice("none"))])
def test_without_tools_to_choose_from_a_call_is_text(
    byte_level: Tokenizer, tools: tuple[Tool, ...], choice: ToolChoice
) -> None:
    events = read(marked(byte_level, tools=tools, choice=choice), stopped(byte_level, CALL))
    assert kinds(events) == [("TextDelta", CALL), ("stop", None)]


def test_one_call_at_most_ends_the_answer_once_it_is_whole(byte_level: Tokenizer) -> None:
    reader = marked(byte_level, choice=ToolChoice(parallel=False))
    pieces = pieces_of(byte_level.encode(f"One.\n{CALL}\n{CALL}"))
    events = read(reader, pieces)
    assert kinds(events) == [
        ("TextDelta", "One."),
        (0, "ping"),
        ("ToolCallDelta", '{"a": 1}'),
        ("tool_calls", None),
    ]
    assert reader.stopped
    assert reader.finished
    assert reader.completion_tokens < len(pieces)


def test_one_call_at_most_even_if_it_is_never_whole(byte_level: Tokenizer) -> None:
    reader = marked(byte_level, choice=ToolChoice(parallel=False))
    broken = CALL.replace("1}}", "1")
    events = read(reader, stopped(byte_level, broken + CALL))
    assert [kind for kind in kinds(events) if kind[0] in (0, 1)] == [(0, "ping")]
    assert kinds(events)[-1] == ("tool_calls", None)


def test_a_stop_string_ends_an_answer_before_its_markup_is_read(byte_level: Tokenizer) -> None:
    reader = marked(byte_level, stops=("END",))
    events = read(reader, stopped(byte_level, f"Paris END {CALL}"))
    assert kinds(events) == [("TextDelta", "Paris "), ("stop", "END")]
    assert reader.stopped


def test_a_stop_string_after_a_call_leaves_it_a_call(byte_level: Tokenizer) -> None:
    events = read(marked(byte_level, stops=("END",)), stopped(byte_level, f"{CALL} END"))
    assert kinds(events)[-1] == ("tool_calls", None)


def test_logprobs_of_text_come_and_those_of_reasoning_and_calls_do_not(
    byte_level: Tokenizer,
) -> None:
    text = f"<think>Hm</think>\nThe capital\n{CALL}\nis Paris."
    events = read(marked(byte_level), stopped(byte_level, text, scored=True))
    told = b"".join(token.bytes for token in logprobs_of(events)).decode()
    assert text_of(events) == "The capitalis Paris."
    assert told.replace("\n", "") == "The capitalis Paris."


@given(
    ids=st.lists(st.integers(0, 411), min_size=1, max_size=30),
    stops=st.lists(st.text("aeT. ", min_size=1, max_size=3), max_size=3),
    finish=st.sampled_from(["stop", "length"]),
)
def test_an_answer_without_markup_is_the_same_read_either_way(
    byte_level: Tokenizer, ids: list[int], stops: list[str], finish: FinishReason
) -> None:
    plain = read(reader_of(byte_level, *stops), pieces_of(ids, finish, scored=True))
    events = read(marked(byte_level, stops=tuple(stops)), pieces_of(ids, finish, scored=True))
    assert text_of(events) == text_of(plain)
    assert logprobs_of(events) == logprobs_of(plain)
    assert events[-1] == ChoiceFinished(2, plain[-1].reason, plain[-1].stop_sequence)


def test_a_stop_id_that_is_a_marker_ends_the_call(byte_level: Tokenizer) -> None:
    header = "<|channel|>commentary to=functions.ping<|message|>"
    ids = [*byte_level.encode(header + '{"a": 1}'), byte_level.token_id("<|end|>")]
    reader = marked(byte_level, markup=Markup("harmony"), prompt="<|start|>assistant")
    assert kinds(read(reader, pieces_of(ids, "stop"))) == [
        (0, "ping"),
        ("ToolCallDelta", '{"a": 1}'),
        ("tool_calls", None),
    ]


def test_a_special_token_that_is_a_marker_is_read_as_its_text(byte_level: Tokenizer) -> None:
    markup = Markup("hermes", ("<|begin|>", "<|end|>"))
    ids = byte_level.encode("<|begin|>Hm<|end|>Paris")
    events = read(marked(byte_level, markup=markup), pieces_of(ids))
    assert kinds(events) == [("ReasoningDelta", "Hm"), ("TextDelta", "Paris"), ("length", None)]
    events = read(marked(byte_level), pieces_of(ids))
    assert kinds(events)[0] == ("TextDelta", "HmParis")
