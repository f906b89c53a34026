"""Server-sent events: frames written, and read back from bytes cut anywhere."""

import re
from collections.abc import Iterator

from attrs import define, field, frozen

from helexa.errors import UpstreamMalformed

DONE = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 8 * 1024 * 1024
LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"


def frame(data: bytes, event: str | None = None) -> bytes:
    """One event.  `data` must have no line breaks, as JSON has none."""
    name = b"" if event is None else b"event: %s\n" % event.encode()
    return b"%sdata: %s\n\n" % (name, data)


def comment(text: str) -> bytes:
    """A line that every reader of events ignores; it keeps the connection alive."""
    return b": %s\n\n" % text.encode()


@frozen
class Frame:
    data: str
    event: str = "message"


@frozen
class Comment:
    text: str


@define(eq=False)
class Parser:
    """Bytes in any split to frames and comments; an event that the stream's end cuts off is dropped.

    UpstreamMalformed when a line, or the data of one event, exceeds `max_bytes`.
    """

    max_bytes: int = MAX_EVENT_BYTES
    _pending: bytearray = field(factory=bytearray, init=False)  # of the line not yet ended
    _searched: int = field(default=0, init=False)  # how much of it is known to hold no line end
    _after_cr: bool = field(default=False, init=False)  # a line feed that follows belongs to it
    _at_start: bool = field(default=True, init=False)
    _data: list[str] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)  # of `_data`, in characters
    _event: str = field(default="", init=False)

    def feed(self, data: bytes) -> list[Frame | Comment]:
        found: list[Frame | Comment] = []
        for line in self._lines(data):
            found.extend(self._read(line))
        return found

    def _lines(self, data: bytes) -> Iterator[str]:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._pending += data
        begin = 0
        while end := LINE_END.search(self._pending, max(begin, self._searched)):
            yield self._decode(self._pending[begin : end.start()])
            begin = end.end()
            self._after_cr = end[0] == b"\r" and begin == len(self._pending)
        del self._pending[:begin]
        self._searched = len(self._pending)
        self._bound(self._searched)

    def _decode(self, line: bytearray) -> str:
        self._bound(len(line))
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        return line.decode("utf-8", "replace")

    def _read(self, line: str) -> Iterator[Frame | Comment]:
        if not line:
            yield from self._dispatch()
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                yield Comment(value)
            case "data":
                self._size += len(value)
                self._bound(self._size)
                self._data.append(value)
            case "event":
                self._event = value

    def _dispatch(self) -> Iterator[Frame]:
        if self._data:
            yield Frame("\n".join(self._data), self._event or "message")
        self._data, self._size, self._event = [], 0, ""

    def _bound(self, size: int) -> None:
        if size > self.max_bytes:
            raise UpstreamMalformed(
                f"The event stream holds an event of more than {self.max_bytes} bytes."
            )
