"""From the events of a generation to the bytes of its response, whole or as a stream kept alive."""

from collections.abc import AsyncGenerator, Sequence

import trio

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Events,
    Finished,
    Phase,
    Progress,
    TextDelta,
)
from helexa.errors import HelexaError
from helexa.trace import Trace
from helexa.wire.answer import Answer, Collector
from helexa.wire.envelope import unexpected
from helexa.wire.exchange import Writer
from helexa.wire.places import Places, put_in_place

KEEP_ALIVE_SECONDS = 10.0
ANSWERING: Phase = "decode"
STILL_WRITING = Progress(ANSWERING)  # for a stream whose batches give it nothing to write


class EndedEarly(Exception):
    """A generation ended without its last event: a mistake of ours, told as one."""


async def collect(events: Events, trace: Trace) -> Answer:
    collector = Collector()
    async for batch in events:
        for event in batch:
            note_end(event, trace)
            collector.add(event)
    if collector.answer is None:
        raise EndedEarly
    return collector.answer


async def first_batch(events: Events, open_at: float) -> Sequence[Event]:
    """The batch that opens a stream: the first of the answer, or any from `open_at` on (Trio's clock)."""
    async for batch in events:
        if not is_progress(batch) or trio.current_time() >= open_at:
            return batch
    raise EndedEarly


async def write_events(
    first: Sequence[Event], events: Events, writer: Writer, trace: Trace
) -> AsyncGenerator[bytes, None]:
    """The answer's frames, a batch in one write, and a sign of life where too long there was none, or
    where the wait is for something else than before."""
    yield write_batch(first, writer, trace)
    written_at, phase = trio.current_time(), phase_of(first)
    async for batch in events:
        now, last_phase = trio.current_time(), phase
        phase = ANSWERING if phase == ANSWERING else phase_of(batch)
        is_due = now - written_at >= KEEP_ALIVE_SECONDS
        if is_progress(batch) and not is_due and phase == last_phase:
            continue
        frames = write_batch(batch, writer, trace)
        if is_due and not frames:
            frames = writer.write(STILL_WRITING)
        if frames:
            written_at = now
            yield frames
    if trace.ended_at is None:
        raise EndedEarly


def write_batch(batch: Sequence[Event], writer: Writer, trace: Trace) -> bytes:
    for event in batch:
        note_end(event, trace)
    return b"".join(map(writer.write, batch))


def is_progress(batch: Sequence[Event]) -> bool:
    return all(isinstance(event, Progress) for event in batch)


def phase_of(batch: Sequence[Event]) -> Phase:
    """What a batch says is waited for."""
    match batch:
        case [*_, Progress(phase)] if is_progress(batch):
            return phase
        case _:
            return ANSWERING


def last_words(writer: Writer, places: Places, trace: Trace, error: Exception) -> bytes:
    """What a stream ends with when it fails after its 200."""
    trace.fail(error)
    told = error if isinstance(error, HelexaError) else unexpected(trace.request_id)
    return writer.error(put_in_place(told, places))


def note_end(event: Event, trace: Trace) -> None:
    if isinstance(event, TextDelta):  # first: it comes once per token
        return
    if isinstance(event, ChoiceFinished):
        trace.finish = trace.finish or event.reason
    elif isinstance(event, Finished):
        trace.usage = event.usage
        trace.end("stop")
