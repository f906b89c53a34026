"""What the passage of a stream is, whatever its dialect.

Of an answer that has begun only those frames are looked into that may hold its end, its usage or an
error; the rest is counted.  A frame goes on as soon as it is complete, byte for byte.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from attrs import define, field, frozen

from helexa.conversation import Event, Usage
from helexa.errors import UpstreamError, UpstreamMalformed
from helexa.wire import sse
from helexa.wire.passing import frames
from helexa.wire.upstream import malformed


@frozen
class Seen:
    """Some frames: `data` is what goes on of them, with about `tokens` tokens in it, `events` what else
    they tell.  After an `error` nothing more is to be read."""

    data: bytes = b""
    tokens: int = 0
    events: Sequence[Event] = ()
    error: UpstreamError | None = None


NOTHING = Seen()


@define(eq=False)
class Passage:
    """One stream.  `begun` once the model answers, `done` once it has said its last word.

    What the model waits for is told as Progress and does not go on.  `usage` is what the upstream told
    of it, if anything.
    """

    MARKS: ClassVar[tuple[bytes, ...]]  # of the frames that must be looked into
    HOLDS: ClassVar[bool] = False  # whether what comes before the answer goes on when it begins

    begun: bool = field(default=False, init=False)
    done: bool = field(default=False, init=False)
    usage: Usage | None = field(default=None, init=False)
    _pending: bytes = field(default=b"", init=False)  # of the frame that is not complete yet
    _held: bytes = field(default=b"", init=False)
    _drops: bool = field(default=False, init=False)  # whether the frame in hand stays here

    def feed(self, data: bytes) -> Seen:
        """More of the stream; what cannot be read is an `error` in what is seen."""
        searched = max(0, len(self._pending) - 3)
        self._pending += data
        end = frames.last_end(self._pending, searched)
        if not end:
            return NOTHING if len(self._pending) <= sse.MAX_EVENT_BYTES else Seen(error=too_large())
        block, self._pending = self._pending[:end], self._pending[end:]
        if self.begun and not self._has_marks(block):
            return Seen(block, frames.count(block))
        return self._look(block)

    def end(self) -> Seen:
        """The stream has ended: what was left of it, or that the answer was cut off."""
        rest, self._pending = self._pending, b""
        seen = self._look(rest) if rest.strip() else NOTHING
        if seen.error is None and not self.done:
            return Seen(seen.data, seen.tokens, seen.events, cut_off())
        return seen

    @property
    def unread(self) -> bytes:
        """The beginning of a frame that is not complete."""
        return self._pending

    # -- what each dialect knows ---------------------------------------------------------------------

    def _comment(self, text: str) -> Iterator[Event]:
        """What a comment tells."""
        yield from ()

    def _event(self, data: str) -> Iterator[Event]:
        """What the data of a frame tell; the first that belongs to the answer sets `begun`."""
        raise NotImplementedError

    # -- frame by frame --------------------------------------------------------------------------------

    def _has_marks(self, data: bytes) -> bool:
        return any(mark in data for mark in self.MARKS)

    def _look(self, block: bytes) -> Seen:
        """Into every frame until the answer begins, then into those with a mark."""
        passed, tokens, events = list[bytes](), 0, list[Event]()
        marked, at = frames.Marked(block, self.MARKS), 0
        while at < len(block):
            begin = marked.next(at) if self.begun else at
            if begin > at:
                passed.append(block[at:begin])
                tokens += frames.count(passed[-1])
            if begin == len(block):
                break
            at = frames.end_of(block, begin)
            try:
                events += self._read(block[begin:at])
            except UpstreamError as error:
                return Seen(b"".join(passed), tokens, events, error)
            passed.append(self._going_on(block[begin:at]))
        return Seen(b"".join(passed), tokens, events)

    def _read(self, frame: bytes) -> list[Event]:
        self._drops = False
        line = frame.rstrip()
        if line.startswith(b"data: ") and b"\n" not in line:  # as most are
            return list(self._event(line[6:].decode("utf-8", "replace")))
        events: list[Event] = []
        for found in sse.Parser().feed(frame + b"\n\n"):
            match found:
                case sse.Comment(text):
                    events += self._comment(text)
                case sse.Frame(text):
                    events += self._event(text)
        return events

    def _going_on(self, frame: bytes) -> bytes:
        """What goes on now that `frame` was read."""
        if not self.begun:
            self._held += frame if self.HOLDS else b""
            return b""
        held, self._held = self._held, b""
        return held + (b"" if self._drops else frame)


def too_large() -> UpstreamMalformed:
    return malformed(f"it holds an event of more than {sse.MAX_EVENT_BYTES} bytes")


def cut_off() -> UpstreamMalformed:
    return malformed("the stream ended before the answer was complete")
