"""What must hold of every conversation and of every answer."""

from itertools import pairwise

import orjson
from attrs import evolve
from chat_strategies import answers, conversations, cuts, lines, usages
from hypothesis import given
from hypothesis import strategies as st

from helexa.conversation import Conversation, Event, Finished, Image, Message, Started, Text
from helexa.wire import openai_chat
from helexa.wire.answer import Collector
from helexa.wire.exchange import Reply
from helexa.wire.fields import parse_json
from helexa.wire.openai_responses import (
    StreamReader,
    read_answer,
    read_request,
    write_request,
)

REPLY = Reply("req_AbC123", "m", 1_700_000_000)


def is_one_turn(first: Message, second: Message) -> bool:
    """Whether two messages of an assistant are one turn where a conversation is a list of items."""
    if (first.role, second.role) != ("assistant", "assistant"):
        return False
    return not (says_at(first, -1) and says_at(second, 0))


def says_at(message: Message, place: int) -> bool:
    return not message.parts or isinstance(message.parts[place], Text | Image)


def has_turns_of_one_message(conversation: Conversation) -> bool:
    return not any(is_one_turn(a, b) for a, b in pairwise(conversation.messages))


def sent(conversation: Conversation) -> Conversation:
    body = orjson.dumps(write_request(conversation))
    return read_request(parse_json(body)).conversation


responses_conversations = conversations.map(lambda found: evolve(found, n=1)).filter(
    has_turns_of_one_message
)


@given(responses_conversations)
def test_a_conversation_is_the_same_after_it_was_sent(conversation: Conversation) -> None:
    assert sent(conversation) == conversation


@given(responses_conversations)
def test_a_conversation_is_the_same_after_both_of_openais_dialects(
    conversation: Conversation,
) -> None:
    body = orjson.dumps(openai_chat.write_request(conversation))
    chat = openai_chat.read_request(parse_json(body)).conversation
    assert sent(chat) == chat


@given(conversations)
def test_what_an_assistant_says_in_several_messages_is_never_lost(
    conversation: Conversation,
) -> None:
    conversation = evolve(conversation, n=1)
    said = [part for message in conversation.messages for part in message.parts]
    assert [part for message in sent(conversation).messages for part in message.parts] == said


# -- answers -----------------------------------------------------------------------------------------


@st.composite
def single_answers(draw: st.DrawFn) -> list[Event]:
    """The events of a generation with one answer."""
    waiting = [event for event in draw(answers()) if type(event).__name__ == "Progress"]
    usage = draw(usages)
    started = Started(usage.prompt_tokens, usage.cached_tokens)
    return [*waiting, started, *draw(lines(0)), Finished(usage)]


def write_stream(events: list[Event]) -> bytes:
    writer = read_request({"model": "m", "input": "hi"}).writer(REPLY)
    return b"".join(map(writer.write, events))


@given(single_answers(), st.data())
def test_a_stream_is_read_back_as_it_was_however_it_is_cut(
    events: list[Event], data: st.DataObject
) -> None:
    reader = StreamReader()
    pieces = data.draw(cuts(write_stream(events)))
    found = [event for piece in pieces for event in reader.feed(piece)]
    assert [*found, *reader.finish()] == events


@given(single_answers())
def test_a_whole_answer_is_read_back_as_it_was(events: list[Event]) -> None:
    collector, again = Collector(), Collector()
    for event in events:
        collector.add(event)
    assert collector.answer is not None
    whole = read_request({"model": "m", "input": "hi"}).whole(collector.answer, REPLY)
    for event in read_answer(whole):
        again.add(event)
    assert again.answer == collector.answer


@given(single_answers())
def test_the_response_at_the_end_of_a_stream_has_what_the_stream_told(
    events: list[Event],
) -> None:
    frames = [line for line in write_stream(events).split(b"\n") if line.startswith(b"data: {")]
    last = orjson.loads(frames[-1].removeprefix(b"data: "))["response"]
    collector, again = Collector(), Collector()
    for event in events:
        collector.add(event)
    for event in read_answer(orjson.dumps(last)):
        again.add(event)
    assert again.answer == collector.answer
