"""The inference API over answers that a test writes down, and what tells the dialects apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen
from quart_trio import QuartTrio

from helexa.accounts.keys import Key
from helexa.capture import Capture
from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Events,
    Finished,
    Progress,
    Started,
    TextDelta,
    Usage,
)
from helexa.fleet.entry import ModelEntry
from helexa.http.api import Api, add_api
from helexa.http.application import configure
from helexa.nodes.asked import Asked
from helexa.responses import Responses
from helexa.trace import Trace

HELLO = [Started(3), TextDelta(0, "Hello"), TextDelta(0, " there")]
END = [ChoiceFinished(0, "stop"), Finished(Usage(3, 2))]

# A batch of events, so many seconds of waiting with nothing to tell, or how it fails.
Step = Sequence[Event] | float | Exception


@define(eq=False)
class Scripted:
    """Answers every conversation by the same steps, and remembers what it was asked."""

    steps: Sequence[Step] = (HELLO, END)
    asked: list[Conversation] = field(factory=list)
    closed: trio.Event = field(factory=trio.Event)

    async def generate(self, asked: Asked, trace: Trace) -> Events:
        self.asked.append(asked.conversation)
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if not isinstance(step, float):
                    yield step
                    continue
                waited = 0
                while waited < step:
                    await trio.sleep(1)
                    waited += 1
                    yield [Progress("queued", waited)]
        finally:
            self.closed.set()

    async def count(self, conversation: Conversation, key: Key) -> int:
        self.asked.append(conversation)
        return 42


@define(eq=False)
class Ended:
    """In place of the recorder: it hands over the trace of each request that has ended."""

    _traces: list[Trace] = field(factory=list)
    _came: trio.Event = field(factory=trio.Event)

    def finish(self, trace: Trace) -> None:
        trace.end("client_left")
        self._traces.append(trace)
        self._came.set()

    async def trace(self) -> Trace:
        """Of the first request, once it has ended."""
        await self._came.wait()
        return self._traces[0]


def make_api(directory: Path, answers: Scripted | None = None, ended: Ended | None = None) -> Api:
    recorder: Any = ended or Ended()
    capture = Capture(directory / "captures")
    return Api(answers or Scripted(), entries, Responses(), recorder, capture, 2.0)


async def entries() -> list[ModelEntry]:
    return [ModelEntry("m", aliases=("a/b",))]


def app_of(api: Api) -> QuartTrio:
    app = QuartTrio("test")
    configure(app)
    add_api(app, api)
    return app


@frozen
class Dialect:
    """What a test must know of a dialect: a smallest request, and how its streams look.

    `alive` is in every sign of life, `failed` in the event that tells of an error, `last` ends every
    stream that has its error or its answer.
    """

    name: str
    path: str
    question: dict[str, Any]
    alive: bytes
    failed: bytes
    completed: bytes
    last: bytes = b""

    def body(self, **more: Any) -> bytes:
        return json.dumps({"model": "m", **self.question, **more}).encode()


HI = [{"role": "user", "content": "hi"}]
CHAT = Dialect(
    "chat",
    "/v1/chat/completions",
    {"messages": HI},
    alive=b": queued ",
    failed=b'data: {"error":',
    completed=b'"finish_reason":"stop"',
    last=b"data: [DONE]\n\n",
)
COMPLETIONS = Dialect(
    "completions",
    "/v1/completions",
    {"prompt": "hi"},
    alive=b": queued ",
    failed=b'data: {"error":',
    completed=b'"finish_reason":"stop"',
    last=b"data: [DONE]\n\n",
)
RESPONSES = Dialect(
    "responses",
    "/v1/responses",
    {"input": "hi"},
    alive=b"event: response.in_progress\n",
    failed=b"event: response.failed\n",
    completed=b"event: response.completed\n",
    last=b"data: [DONE]\n\n",
)
MESSAGES = Dialect(
    "messages",
    "/v1/messages",
    {"messages": HI, "max_tokens": 10},
    alive=b"event: ping\n",
    failed=b"event: error\n",
    completed=b"event: message_stop\n",
)
DIALECTS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
