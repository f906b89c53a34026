"""POST /v1/chat/completions: one request from its bytes to the last byte of its answer."""

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial

import trio
from attrs import frozen
from quart import Response, request

from helexa.capture import Capture
from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Event,
    Events,
    Finished,
    Progress,
    TextDelta,
)
from helexa.http.call import Call, call_of, take_body
from helexa.http.stream import json_response, sse_response
from helexa.recorder import Recorder
from helexa.trace import Trace
from helexa.wire.answer import Collector
from helexa.wire.envelope import status_and_body
from helexa.wire.fields import parse_json
from helexa.wire.openai_chat import ChatRequest, StreamWriter, read_request, write_answer

KEEP_ALIVE_SECONDS = 10.0

# Answers a conversation; closing the generator gives back all that the request held.
Generate = Callable[[Conversation, Trace], Events]


@frozen
class Chat:
    """The route, for a gateway or a node: they differ in `generate` alone.

    A refusal that is known within `stream_open_seconds` is an HTTP status; after that a stream is
    opened and kept alive, and a later refusal is an event in it.
    """

    generate: Generate
    recorder: Recorder
    capture: Capture
    stream_open_seconds: float

    async def __call__(self) -> Response:
        call = call_of(request)
        call.recorded = True
        trace = Trace(call.request_id, "chat", call.principal, call.client_request_id)
        call.exits.callback(self.recorder.finish, trace)
        try:
            return await self._respond(call, trace)
        except Exception as error:
            trace.fail(error)
            raise

    async def _respond(self, call: Call, trace: Trace) -> Response:
        body = await take_body(request)
        asked = read_request(parse_json(body))
        trace.stream = asked.stream
        await self.capture.write(call.principal.key_id, call.request_id, "request", body)
        events = self.generate(asked.conversation, trace)
        call.exits.push_async_callback(events.aclose)
        if self.capture.active(call.principal.key_id, trio.current_time()):
            events = self._captured(events, call)
            call.exits.push_async_callback(events.aclose)
        if asked.stream:
            return await self._stream(events, asked, call, trace)
        return await self._whole(events, asked, trace)

    async def _whole(self, events: Events, asked: ChatRequest, trace: Trace) -> Response:
        collector = Collector()
        async for batch in events:
            for event in batch:
                note_end(event, trace)
                collector.add(event)
        assert collector.answer is not None
        written = write_answer(
            collector.answer,
            id=answer_id(trace),
            model=asked.conversation.model,
            created=int(trace.wall_time),
        )
        return json_response(written, headers=route_headers(trace))

    async def _stream(
        self,
        events: Events,
        asked: ChatRequest,
        call: Call,
        trace: Trace,
    ) -> Response:
        writer = StreamWriter(
            answer_id(trace), asked.conversation.model, int(trace.wall_time), asked.include_usage
        )
        first = await self._first(events)
        written = write_events(first, events, writer, trace)
        return sse_response(
            written, call, partial(last_words, writer, trace), headers=route_headers(trace)
        )

    async def _first(self, events: Events) -> Sequence[Event]:
        """The first batch that opens the stream: one of the answer, or any when time is up."""
        open_at = trio.current_time() + self.stream_open_seconds
        while True:
            batch = await anext(events)
            if not is_progress(batch) or trio.current_time() >= open_at:
                return batch

    async def _captured(self, events: Events, call: Call) -> Events:
        """The same events; a complete answer is kept for `helexa-ctl capture`."""
        texts: dict[int, str] = {}
        async for batch in events:
            for event in batch:
                if isinstance(event, TextDelta):
                    texts[event.choice] = texts.get(event.choice, "") + event.text
            if isinstance(batch[-1], Finished):
                answer = [texts[choice] for choice in sorted(texts)]
                await self.capture.write(call.principal.key_id, call.request_id, "answer", answer)
            yield batch


async def write_events(
    first: Sequence[Event], events: Events, writer: StreamWriter, trace: Trace
) -> AsyncGenerator[bytes, None]:
    """The answer's frames, a batch in one write; of progress only what keeps the connection alive."""
    yield write_batch(first, writer, trace)
    written_at = trio.current_time()
    async for batch in events:
        now = trio.current_time()
        if is_progress(batch) and now - written_at < KEEP_ALIVE_SECONDS:
            continue
        frames = write_batch(batch, writer, trace)
        if frames:
            written_at = now
            yield frames


def write_batch(batch: Sequence[Event], writer: StreamWriter, trace: Trace) -> bytes:
    for event in batch:
        note_end(event, trace)
    return b"".join(map(writer.write, batch))


def is_progress(batch: Sequence[Event]) -> bool:
    return all(isinstance(event, Progress) for event in batch)


def last_words(writer: StreamWriter, trace: Trace, error: Exception) -> bytes:
    """What a stream ends with when it fails after its 200."""
    trace.fail(error)
    _, _, envelope = status_and_body(error, trace.request_id)
    return writer.error(envelope)


def note_end(event: Event, trace: Trace) -> None:
    if isinstance(event, TextDelta):  # first: it comes once per token
        return
    if isinstance(event, ChoiceFinished):
        trace.finish = trace.finish or event.reason
    elif isinstance(event, Finished):
        trace.usage = event.usage
        trace.end("stop")


def answer_id(trace: Trace) -> str:
    return "chatcmpl-" + trace.request_id.removeprefix("req_")


def route_headers(trace: Trace) -> list[tuple[str, str]]:
    """Where the answer comes from, unless the stream opens before that is known; why, if asked."""
    headers = [("x-helexa-node", trace.node)] if trace.node else []
    if request.headers.get("x-helexa-explain") == "1":
        decisions = "; ".join(f"{at:.3f} s {text}" for at, text in trace.decisions)
        headers.append(("x-helexa-decision", decisions))
    return headers
