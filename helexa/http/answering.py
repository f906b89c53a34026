"""From the events of a generation to the bytes of its response, whole or as a stream kept alive."""

from collections.abc import AsyncGenerator, Sequence

import trio

from helexa.conversation import (
    ChoiceFinished,
    Event,
    Events,
    Finished,
    Passed,
    Phase,
    Progress,
    TextDelta,
)
from helexa.errors import HelexaError
from helexa.trace import Trace
from helexa.wire.answer import Collector
from helexa.wire.envelope import unexpected
from helexa.wire.exchange import Exchange, Reply, Writer
from helexa.wire.places import Places, put_in_place

KEEP_ALIVE_SECONDS = 10.0
ANSWERING: Phase = "decode"
STILL_WRITING = Progress(ANSWERING)  # for a stream whose batches give it nothing to write


class EndedEarly(Exception):
    """A generation ended without its last event: a mistake of ours, told as one."""


async def write_whole(events: Events, exchange: Exchange, reply: Reply, trace: Trace) -> bytes:
    """The body of an answer that is no stream; one that passes through is as it came."""
    collector, passed = Collector(), list[bytes]()
    async for batch in events:
        for event in batch:
            note_end(event, trace)
            if isinstance(event, Passed):
                passed.append(event.data)
            elif not passed:
                collector.add(event)
    if trace.ended_at is None:
        raise EndedEarly
    if passed:
        return b"".join(passed)
    assert collector.answer is not None
    return exchange.whole(collector.answer, reply)


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
    where the wait is for something else than before, or fewer go first in the queue."""
    opening = write_batch(first, writer, trace)
    trace.opened = True
    yield opening
    written_at, wait = trio.current_time(), wait_of(first)
    async for batch in events:
        now, last_wait = trio.current_time(), wait
        wait = wait if wait.phase == ANSWERING else wait_of(batch)
        is_due = now - written_at >= KEEP_ALIVE_SECONDS
        if is_progress(batch) and not is_due and not is_news(wait, last_wait):
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
    """Beside bytes that pass through, nothing of their batch is written."""
    for event in batch:
        note_end(event, trace)
    passed = [event for event in batch if isinstance(event, Passed)]
    return b"".join(map(writer.write, passed or batch))


def is_progress(batch: Sequence[Event]) -> bool:
    return all(isinstance(event, Progress) for event in batch)


def wait_of(batch: Sequence[Event]) -> Progress:
    """What a batch says is waited for; how far that is counts in the queue alone."""
    match batch:
        case [*_, Progress("queued", place)] if is_progress(batch):
            return Progress("queued", place)
        case [*_, Progress(phase)] if is_progress(batch):
            return Progress(phase)
        case _:
            return STILL_WRITING


def is_news(wait: Progress, last: Progress) -> bool:
    """Another phase, or a better place in the queue."""
    return wait.phase != last.phase or wait.done < last.done


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
