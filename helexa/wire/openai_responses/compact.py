"""The request that makes a conversation short: what goes on is what the user said last, and a summary."""

from collections.abc import Iterator

import orjson
from attrs import evolve, frozen

from helexa.conversation import Conversation, Image, Json, Message, Text
from helexa.wire.answer import Answer
from helexa.wire.exchange import Reply
from helexa.wire.openai_responses.asked import Asked
from helexa.wire.openai_responses.content import write_content
from helexa.wire.openai_responses.items import SUMMARY, write_message
from helexa.wire.openai_responses.output import Output, exhaust, fill
from helexa.wire.openai_responses.request import read_request
from helexa.wire.openai_responses.response import write_usage
from helexa.wire.openai_responses.stored import Past
from helexa.wire.openai_responses.summary import ask_for_summary
from helexa.wire.openai_responses.writer import StreamWriter
from helexa.wire.places import Places

MAX_KEPT_CHARACTERS = 16 * 1024  # of what the user said last


@frozen
class CompactionRequest:
    """Answered whole: `output` holds the items to go on with."""

    asked: Asked
    stream: bool = False

    @property
    def conversation(self) -> Conversation:
        return self.asked.conversation

    @property
    def passes(self) -> bool:
        return False  # what it is asked with says nothing of how it is answered

    @property
    def places(self) -> Places:
        return self.asked.places

    def whole(self, answer: Answer, reply: Reply) -> bytes:
        output = Output(self.asked, reply.id(""))
        fill(output, answer.choices[0])
        exhaust(output.end("completed"))
        said = [
            write_said(message, reply, i) for i, message in enumerate(last_said(self.asked.kept))
        ]
        compaction = {
            "id": reply.id("resp_"),
            "object": "response.compaction",
            "created_at": reply.created,
            "output": said + output.items,
            "usage": write_usage(answer.usage),
        }
        return orjson.dumps(compaction)

    def writer(self, reply: Reply) -> StreamWriter:
        return StreamWriter(self.asked, reply)


def read_compaction(body: Json, past: Past | None = None) -> CompactionRequest:
    """The request in a parsed body: that of a response, whose input is to be made short."""
    asked = evolve(read_request(body, past).asked, past=None)
    return CompactionRequest(asked if asked.compacts else ask_for_summary(asked))


def last_said(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The latest messages of the user that stay as they are; an earlier summary is not one."""
    return tuple(reversed(list(take_last(messages))))


def take_last(messages: tuple[Message, ...]) -> Iterator[Message]:
    left = MAX_KEPT_CHARACTERS
    for message in reversed(messages):
        texts = [part.text for part in message.parts if isinstance(part, Text)]
        if message.role != "user" or any(text.startswith(SUMMARY) for text in texts):
            continue
        left -= sum(map(len, texts))
        if left < 0:
            return
        yield message


def write_said(message: Message, reply: Reply, index: int) -> Json:
    content = write_content(tuple(part for part in message.parts if isinstance(part, Text | Image)))
    item_id = f"msg_{reply.id('')}_in{index}"
    return {"id": item_id, "status": "completed"} | write_message("user", content, message.name)
