"""A request sent to a node over HTTP, and its answer as events: passed through where that can be.

Where node and client speak one dialect the answer's bytes go on as they come, a frame as soon as it is
complete.  Until the answer begins they are only read: what the node says of the wait becomes Progress,
and the node may still be lost without a trace.  Elsewhere the answer is read into events.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Protocol

import trio
from attrs import define, evolve, field

from helexa.config.schema import RemoteNode
from helexa.conversation import (
    Delta,
    Event,
    Events,
    Finished,
    Passed,
    Phase,
    Progress,
    Started,
    Usage,
)
from helexa.errors import HelexaError, UpstreamError, UpstreamMalformed
from helexa.nodes.asked import Dialect, Prepared
from helexa.nodes.client import Client, Whole
from helexa.nodes.dialects import PATHS, Spoken, speak
from helexa.nodes.framing import Head
from helexa.nodes.headers import request_headers
from helexa.nodes.incoming import Incoming, Question, UpstreamLost
from helexa.nodes.plausible import believed
from helexa.nodes.port import NodeLost
from helexa.nodes.refusals import answer_error, stream_error
from helexa.trace import Trace
from helexa.wire import openai_chat, openai_responses
from helexa.wire.passing import (
    ChatPassage,
    MessagesPassage,
    Passage,
    ResponsesPassage,
    Seen,
    read_whole,
)

TICK_SECONDS = 1.0  # between two signs of life while nothing comes
# Until the head: a load or a place in line is the node's to bound; a host that dies is noticed by TCP.
HEAD_SECONDS = 3600.0
# A helexa node that hangs keeps its connections: that nobody hears of it otherwise, either, tells.
UNHEARD_SECONDS = 30.0
# From the head on a helexa node says something every 10 s, others may compute a long prompt without a word.
SILENCE_SECONDS = {"helexa": 45.0, "neuron": 900.0, "openai": 900.0}
ERROR_SECONDS = 10.0  # for the words of a refusal
MOST_BYTES = 64 * 2**20  # of a whole answer
MOST_ERROR_BYTES = 2**20

READERS: Mapping[Dialect, type[openai_chat.StreamReader | openai_responses.StreamReader]] = {
    "chat": openai_chat.StreamReader,
    "responses": openai_responses.StreamReader,
}
READ_ANSWER: Mapping[Dialect, Callable[[bytes], list[Event]]] = {
    "chat": openai_chat.read_answer,
    "responses": openai_responses.read_answer,
}


class Reached(Protocol):
    """A port over HTTP."""

    @property
    def node(self) -> RemoteNode: ...
    @property
    def client(self) -> Client: ...
    async def inference_endpoint(self, model: str) -> str:
        """The URL where requests for a loaded model go, without a path."""


async def generate(port: Reached, prepared: Prepared, trace: Trace) -> Events:
    """As `NodePort.generate`; closing it closes the connection unless the answer has ended."""
    spoken, kind = speak(port.node, prepared), port.node.kind
    trace.node = port.node.name
    question = Question(
        PATHS[spoken.dialect],
        request_headers(prepared.asked, spoken.dialect, kind, trace),
        spoken.body,
        await port.inference_endpoint(prepared.entry.id),
        HEAD_SECONDS,
        SILENCE_SECONDS[kind],
    )
    incoming = port.client.ask(question)
    relay = Relay(port.node, port.client, prepared, trace, spoken, incoming)
    try:
        async with aclosing(relay.run()) as batches:
            async for batch in batches:
                yield batch
    finally:
        incoming.close()
        relay.note_usage()


@define(eq=False)
class Relay:
    """One request under way."""

    node: RemoteNode
    client: Client
    prepared: Prepared
    trace: Trace
    spoken: Spoken
    incoming: Incoming
    _phase: Phase = field(default="queued", init=False)
    _begun: bool = field(default=False, init=False)
    _done: bool = field(default=False, init=False)
    _started: Usage | None = field(default=None, init=False)  # what it took until it began
    _counted: int = field(default=0, init=False)  # about how many tokens came

    async def run(self) -> Events:
        while (response := await self.incoming.head(TICK_SECONDS)) is None:
            if self._is_unheard():
                raise NodeLost(self._unheard)
            yield [Progress(self._phase)]
        if response.status != 200:
            raise await self._refusal(response)
        if not self.prepared.asked.stream or is_json(response):
            answer = self._whole()
        elif self.spoken.passes:
            answer = self._pass(passage_of(self.spoken))
        else:
            answer = self._decode()
        async with aclosing(answer) as batches:
            async for batch in batches:
                yield batch

    def note_usage(self) -> None:
        """Of an answer that did not come to its end, what came of it."""
        if self.trace.usage is None and self._started is not None:
            self.trace.usage = evolve(self._started, completion_tokens=self._counted)

    async def _refusal(self, response: Head) -> HelexaError:
        body = bytearray()
        with trio.move_on_after(ERROR_SECONDS), suppress(UpstreamError):
            while piece := await self.incoming.piece(ERROR_SECONDS):
                body += piece
                if len(body) > MOST_ERROR_BYTES:
                    break
        whole = Whole(response.status, response.headers, bytes(body))
        return answer_error(self.node.name, self.node.kind, whole, passes=self.spoken.passes)

    # -- whole -------------------------------------------------------------------------------------

    async def _whole(self) -> Events:
        body = bytearray()
        while (piece := await self._piece()) != b"":
            if piece is None:
                yield [Progress(self._phase)]
                continue
            body += piece
            if len(body) > MOST_BYTES:
                raise UpstreamMalformed(f"node {self.node.name} answers without end")
        try:
            yield self._read_whole(bytes(body))
        except UpstreamError as error:
            raise self._failure(error) from None

    def _read_whole(self, body: bytes) -> Sequence[Event]:
        ending = read_whole(self.spoken.dialect, body)
        usage = believed(ending.usage, self.prepared, ending.tokens)
        if not self.spoken.passes:
            *events, _ = READ_ANSWER[self.spoken.dialect](body)
            return [*map(self._settled, events), Finished(usage)]
        if self.prepared.asked.stream:
            raise UpstreamMalformed(f"node {self.node.name} does not answer as a stream")
        started = Started(usage.prompt_tokens, usage.cached_tokens)
        return [Passed(body, usage.completion_tokens), started, *ending.choices, Finished(usage)]

    # -- passed through ----------------------------------------------------------------------------

    async def _pass(self, passage: Passage) -> Events:
        while not self._done:
            piece = await self._piece()
            if piece is None:
                yield [Progress(self._phase)]
                continue
            if not piece and not self._begun:
                raise self._lost()
            seen = passage.feed(piece) if piece else passage.end()
            self._done = passage.done
            is_ours = passage.begun and not self._begun and self._speaks_already()
            if is_ours and seen.error is None:
                async with aclosing(self._decode(seen.data + passage.unread)) as batches:
                    async for batch in batches:
                        yield batch
                return
            if seen.data or seen.events:
                yield self._passed(passage, seen)
            if seen.error is not None:
                raise self._failure(seen.error)
        async with aclosing(self._last(passage)) as batches:
            async for batch in batches:
                yield batch

    async def _last(self, passage: Passage) -> Events:
        """What follows on the last word, such as [DONE], and the usage."""
        while piece := await self._piece():
            yield self._passed(passage, passage.feed(piece))
        usage = believed(passage.usage, self.prepared, self._counted)
        yield [Passed(passage.end().data), Finished(usage)]

    def _speaks_already(self) -> bool:
        """Whether our own writer has opened the stream where there is but one opening: a response has
        one id, and its events are numbered."""
        return self.spoken.dialect == "responses" and self.trace.opened

    def _passed(self, passage: Passage, seen: Seen) -> Sequence[Event]:
        events = [self._settled(event) for event in seen.events]
        if not passage.begun:
            return events
        self._counted += seen.tokens
        self._mark()
        return [Passed(seen.data, seen.tokens), *events]

    # -- read --------------------------------------------------------------------------------------

    async def _decode(self, begins: bytes = b"") -> Events:
        reader = READERS[self.spoken.dialect]()
        self._done = False
        piece: bytes | None = begins or await self._piece()
        while piece != b"" and not (self._done and piece is None):
            if piece is None:
                yield [Progress(self._phase)]
            else:
                events, error = until_error(reader.feed(piece))
                if batch := self._told(events):
                    yield batch
                if error is not None:
                    raise self._failure(error)
            piece = await self._piece()
        if not self._begun:
            raise self._lost()
        events, error = until_error(reader.finish())
        if error is not None:
            raise self._failure(error)
        if batch := self._told(events):
            yield batch

    def _told(self, events: Sequence[Event]) -> Sequence[Event]:
        batch = [self._settled(event) for event in events]
        self._counted += sum(isinstance(event, Delta) for event in batch)
        if any(not isinstance(event, Progress) for event in batch):
            self._mark()
        self._done = self._done or any(isinstance(event, Finished) for event in batch)
        return batch

    # -- both --------------------------------------------------------------------------------------

    async def _piece(self) -> bytes | None:
        """More of the answer, b"" at its end, None where there is none yet; NodeLost until it begins."""
        try:
            piece = await self.incoming.piece(TICK_SECONDS)
            if piece is None and self._is_unheard():
                raise UpstreamLost(self._unheard)
            return piece
        except UpstreamError as error:
            if self._done:
                return b""
            if self._begun:
                raise
            raise NodeLost(error.message) from None

    def _is_unheard(self) -> bool:
        """Whether nothing has come for long, neither here nor to whoever looks at the node."""
        since = self.client.unheard_since
        if since is None or self.node.kind != "helexa":
            return False
        return trio.current_time() - max(since, self.incoming.heard_at) >= UNHEARD_SECONDS

    @property
    def _unheard(self) -> str:
        return f"node {self.node.name} is not heard of any more"

    def _lost(self) -> NodeLost:
        return NodeLost(f"node {self.node.name} ended its answer before it began")

    def _settled(self, event: Event) -> Event:
        """Numbers that can be true, and what is waited for."""
        match event:
            case Progress(phase):
                self._phase = phase
            case Started(prompt_tokens, cached_tokens):
                found = Usage(prompt_tokens or self.prepared.num_tokens, 0, cached_tokens)
                self._started = found
                return Started(found.prompt_tokens, found.cached_tokens)
            case Finished(usage):
                return Finished(believed(usage, self.prepared, self._counted))
        return event

    def _mark(self) -> None:
        """Tokens came, the first or more of them."""
        now, trace = trio.current_time(), self.trace
        if self._begun:
            trace.longest_gap = max(trace.longest_gap, now - trace.last_token_at)
        else:
            trace.first_token_at = now
            self._phase = "decode"
        self._begun, trace.last_token_at = True, now

    def _failure(self, error: UpstreamError) -> HelexaError:
        if isinstance(error, UpstreamMalformed):
            return error
        return stream_error(self.node.name, self.node.kind, error)


def passage_of(spoken: Spoken) -> Passage:
    match spoken.dialect:
        case "messages":
            return MessagesPassage()
        case "responses":
            return ResponsesPassage()
        case _:
            return ChatPassage(spoken.adds_usage)


def is_json(response: Head) -> bool:
    """Some servers answer whole, or with an error, whatever they are asked."""
    return response.header("content-type").startswith("application/json")


def until_error(events: Iterable[Event]) -> tuple[list[Event], UpstreamError | None]:
    """The events up to an error, and that."""
    found: list[Event] = []
    try:
        for event in events:
            found.append(event)
    except UpstreamError as error:
        return found, error
    return found, None
