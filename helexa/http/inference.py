"""One request of any dialect, from its bytes to the last byte of its answer."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import trio
from attrs import Attribute, asdict, evolve, frozen
from quart import Response

from helexa.accounts.keys import Key
from helexa.capture import Capture
from helexa.conversation import Conversation, Events, Json, Passed, Principal
from helexa.errors import HelexaError
from helexa.escape import escape
from helexa.http.answering import first_batch, last_words, write_events, write_whole
from helexa.http.call import Call
from helexa.http.recorded import recorded
from helexa.http.refusals import cut
from helexa.http.stream import Header, json_response, sse_response
from helexa.nodes.asked import Asked, Dialect
from helexa.nodes.headers import Given, session_of, wishes_of
from helexa.recorder import Recorder
from helexa.trace import Trace
from helexa.wire.answer import Answer, Collector
from helexa.wire.exchange import Exchange, Reply
from helexa.wire.fields import parse_json
from helexa.wire.places import put_in_place

LARGE_BODY = 128 * 1024  # bytes
MAX_NOTES, LONGEST_NOTE, LONGEST_DECISIONS = 20, 200, 4000  # the last two in characters

# The request in a parsed body, and who sent it.  InvalidRequest names the field that is wrong.
Read = Callable[[Json, Principal], Exchange]


class Answers(Protocol):
    """Who answers conversations: the gateway for a fleet, or a node by itself.

    `generate` says Progress about once a second while it has nothing else to tell, and its last event
    is Finished; closing it gives back all that the request held.  `count` gives the tokens of the
    prompts that `generate` would read for `key`.  Both raise HelexaErrors.
    """

    def generate(self, asked: Asked, trace: Trace) -> Events: ...
    async def count(self, conversation: Conversation, key: Key) -> int: ...


@frozen
class Inference:
    """The route of one dialect, called `dialect` in records.

    A refusal that is known within `stream_open_seconds` is an HTTP status; after that a stream is
    opened and kept alive, and a later refusal is an event in it.
    """

    dialect: Dialect
    read: Read
    answers: Answers
    recorder: Recorder
    capture: Capture
    stream_open_seconds: float

    async def __call__(self, call: Call) -> Response:
        return await recorded(self.dialect, self.recorder, call, self._respond)

    async def _respond(self, call: Call, trace: Trace) -> Response:
        exchange, data, body = await take_exchange(self.read, call)
        trace.stream = exchange.stream
        await self.capture.write(call.principal.key_id, call.request_id, "request", data)
        asked = asked_of(self.dialect, exchange, body, len(data), call)
        for note in asked.conversation.notes[:MAX_NOTES]:
            trace.note(cut(note, LONGEST_NOTE))
        is_captured = self.capture.active(call.principal.key_id, trio.current_time())
        if is_captured:  # what passes through is not read
            asked = evolve(asked, passes=False)
        events = self.answers.generate(asked, trace)
        call.exits.push_async_callback(events.aclose)
        if is_captured:
            events = self._captured(events, call)
            call.exits.push_async_callback(events.aclose)
        try:
            return await self._answer(exchange, events, call, trace)
        except HelexaError as error:
            raise put_in_place(error, exchange.places) from None

    async def _answer(
        self, exchange: Exchange, events: Events, call: Call, trace: Trace
    ) -> Response:
        reply = Reply(call.request_id, exchange.conversation.model, int(trace.wall_time))
        if not exchange.stream:
            whole = await write_whole(events, exchange, reply, trace)
            return json_response(whole, headers=route_headers(call, trace))
        writer = exchange.writer(reply)
        first = await first_batch(events, trio.current_time() + self.stream_open_seconds)
        written = write_events(first, events, writer, trace)
        said_last = partial(last_words, writer, exchange.places, trace)
        return sse_response(written, call, said_last, headers=route_headers(call, trace))

    async def _captured(self, events: Events, call: Call) -> Events:
        """The same events; a complete answer is kept for `helexa-ctl capture`."""
        collector = Collector()
        async for batch in events:
            for event in batch:
                if not isinstance(event, Passed):
                    collector.add(event)
            if collector.answer is not None:
                kept = captured(collector.answer)
                await self.capture.write(call.principal.key_id, call.request_id, "answer", kept)
            yield batch


# -- what is asked -------------------------------------------------------------------------------------


async def take_exchange(read: Read, call: Call) -> tuple[Exchange, bytes, Json]:
    """The request, its body, and that parsed; a large one is read in a thread, so that nobody
    waits for it."""
    data = await call.body.take()

    def understood() -> tuple[Exchange, Json]:
        body = parse_json(data)
        return read(body, call.principal), body

    is_large = len(data) > LARGE_BODY
    exchange, body = await trio.to_thread.run_sync(understood) if is_large else understood()
    return exchange, data, body


def asked_of(dialect: Dialect, exchange: Exchange, body: Json, num_bytes: int, call: Call) -> Asked:
    """The request as nodes are asked it."""
    return Asked(
        dialect,
        with_wishes(exchange.conversation, call.headers),
        body,
        exchange.stream,
        exchange.passes,
        wishes_of(call.headers),
        session_of(call.headers, body, dialect),
        num_bytes,
        call.key,
    )


def with_wishes(conversation: Conversation, headers: Given) -> Conversation:
    """`conversation` with what the headers of its request ask for."""
    if (headers.get("x-include-thinking") or "").strip().lower() != "true":
        return conversation
    thinking = conversation.thinking
    shown = evolve(thinking, enabled=thinking.enabled is not False, shown=True)
    return evolve(conversation, thinking=shown)


# -- what is answered ----------------------------------------------------------------------------------


def captured(answer: Answer) -> Json:
    """Each answer as what it says, thinks and calls."""
    return [asdict(choice, filter=is_said) for choice in answer.choices]


def is_said(attribute: "Attribute[Any]", value: Any) -> bool:
    return not attribute.name.endswith("logprobs") and value not in (None, "", ())


def route_headers(call: Call, trace: Trace) -> list[Header]:
    """Where the answer comes from, unless the stream opens before that is known; why, if asked."""
    headers = [("x-helexa-node", trace.node)] if trace.node else []
    if call.headers.get("x-helexa-explain") == "1":
        decisions = "; ".join(f"{at:.3f} s {text}" for at, text in trace.decisions)
        plain = escape(decisions).encode("ascii", "backslashreplace").decode()
        headers.append(("x-helexa-decision", plain[:LONGEST_DECISIONS]))
    return headers
