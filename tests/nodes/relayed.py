"""A request on its way through a port to a fake node, and what became of it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

import orjson
from attrs import define, field
from fake_node import Answer, FakeNode, chunks, fake_node

from helexa.config.schema import RemoteNode
from helexa.conversation import Event, Events, Finished, Json, Passed, Principal, Progress, Usage
from helexa.fleet.catalogue import CatalogueModel
from helexa.nodes.asked import Asked, Dialect, Prepared
from helexa.nodes.client import Client
from helexa.nodes.dialects import PATHS
from helexa.nodes.remote import RemotePort
from helexa.nodes.upstream import UpstreamPort
from helexa.trace import Trace
from helexa.wire import anthropic, openai_chat, openai_completions, openai_responses

Kind = Literal["helexa", "neuron", "openai"]

HI = [{"role": "user", "content": "hi"}]
QUESTIONS: Mapping[Dialect, dict[str, Json]] = {
    "chat": {"messages": HI},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi", "store": False},
    "messages": {"messages": HI, "max_tokens": 100},
}
READ: Mapping[Dialect, Any] = {
    "chat": openai_chat.read_request,
    "completions": openai_completions.read_request,
    "responses": openai_responses.read_request,
    "messages": anthropic.read_request,
}
NUM_TOKENS = 7  # of the prompt, as the gateway has counted them


def prepared(
    dialect: Dialect = "chat",
    *,
    stream: bool = False,
    max_tokens: int | None = None,
    passes: bool = True,
    wishes: tuple[tuple[str, str], ...] = (),
    **more: Json,
) -> Prepared:
    body = {"model": "alias", **QUESTIONS[dialect], "stream": stream, **more}
    conversation = READ[dialect](body).conversation
    num_bytes = len(orjson.dumps(body))
    asked = Asked(dialect, conversation, body, stream, passes, wishes, "s3ss10n", num_bytes)
    return Prepared(asked, CatalogueModel("the-model"), NUM_TOKENS, max_tokens=max_tokens)


def trace_of(dialect: Dialect = "chat") -> Trace:
    return Trace("req_1", dialect, Principal("account", "key"))


@define(eq=False)
class Room:
    """A port, and the node behind it."""

    port: RemotePort | UpstreamPort
    node: FakeNode
    trace: Trace = field(factory=trace_of)

    def generate(self, asked: Prepared) -> Events:
        return self.port.generate(asked, self.trace)

    async def ask(self, asked: Prepared, answered: "Answered | None" = None) -> "Answered":
        answered = answered or Answered()
        async with aclosing(self.generate(asked)) as batches:
            async for batch in batches:
                answered.add(batch)
        return answered


@define(eq=False)
class Answered:
    events: list[Event] = field(factory=list)
    batches: list[Sequence[Event]] = field(factory=list)

    def add(self, batch: Sequence[Event]) -> None:
        self.events += batch
        self.batches.append(batch)

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, Passed))

    @property
    def told(self) -> list[Event]:
        """All but bytes and signs of life."""
        return [event for event in self.events if not isinstance(event, Passed | Progress)]

    @property
    def progress(self) -> list[Event]:
        return [event for event in self.events if isinstance(event, Progress)]

    @property
    def usage(self) -> Usage:
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last.usage


@asynccontextmanager
async def room(
    kind: Kind = "openai", *, token: str = "", dialects: tuple[Dialect, ...] = (), **answers: Answer
) -> AsyncGenerator[Room, None]:
    """`room(chat=answer(...))` answers chat completions so."""
    async with fake_node() as node:
        known: Any = PATHS
        node.answers |= {known[dialect]: given for dialect, given in answers.items()}
        remote = RemoteNode("gpu", node.url, kind, token=token, dialects=dialects)
        with Client(remote) as client:
            port = UpstreamPort if kind == "openai" else RemotePort
            yield Room(port(remote, client), node)


# -- what nodes write ----------------------------------------------------------------------------------


def sse(*events: Json | bytes, named: bool = False) -> list[bytes]:
    """Frames of JSON; bytes are as they are."""
    return [event if isinstance(event, bytes) else framed(event, named) for event in events]


def framed(event: Json, named: bool) -> bytes:
    name = b"event: %s\n" % event["type"].encode() if named else b""
    return b"%sdata: %s\n\n" % (name, orjson.dumps(event))


def chunk(delta: Json = None, finish: str | None = None, **more: Json) -> Json:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], **more}


def usage_chunk(prompt: int, completion: int) -> Json:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": usage}


def streamed(*frames: bytes, end: Answer | None = None) -> Answer:
    return chunks(*frames, end=end)


DONE = b"data: [DONE]\n\n"
HELLO = sse(
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hello"}),
    chunk({"content": " there"}),
    chunk(finish="stop"),
)
