"""The bytes of an HTTP/1.1 answer: where its head ends, how its body is framed, what is left behind it.

Strict where two programs could read in two ways: what is framed twice, or not quite as RFC 9112 has it,
is Garbled.  Pure: bytes in, bytes out.
"""

from collections.abc import Sequence
from typing import Protocol

from attrs import define, field, frozen

Headers = Sequence[tuple[str, str]]

MAX_HEAD_BYTES = (
    100 * 2**10
)  # of an answer, those before the one that counts included; so for trailers
MAX_SIZE_LINE = 2**10
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")
TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # RFC 9110, 5.6.2
HEX = b"0123456789abcdefABCDEF"
MAX_DIGITS = 15
SWITCHED, NO_CONTENT, NOT_MODIFIED = 101, 204, 304


class Garbled(Exception):
    """What came is no HTTP/1.1, or its end is missing; says what is wrong."""


@frozen(eq=False)
class Head:
    """The beginning of an answer; names of headers are lower case."""

    status: int
    headers: Headers

    def header(self, name: str) -> str:
        """The first value of `name`, "" if it is not there."""
        return next((value for key, value in self.headers if key == name), "")

    def words(self, name: str) -> list[str]:
        """All that `name` lists, in lower case."""
        listed = (value.split(",") for key, value in self.headers if key == name)
        return [word.strip(" \t").lower() for words in listed for word in words]


@define(eq=False)
class Answer:
    """One answer as it comes.  `head` is there once it is complete; informational ones are skipped.

    Once it has `ended`, `keeps` tells whether the connection can be used again.
    """

    head: Head | None = field(default=None, init=False)
    ended: bool = field(default=False, init=False)
    keeps: bool = field(default=False, init=False)
    _unread: bytes = field(default=b"", init=False)
    _num_skipped: int = field(default=0, init=False)  # bytes of heads
    _body: "Body" = field(init=False)

    def feed(self, data: bytes) -> None:
        """More bytes, b"" for the end of the connection."""
        self._unread += data
        if self.head is None:
            self._read_heads(is_all=not data)
        elif not data:
            self._body.cut()
            self.ended, self.keeps = True, False

    def take(self) -> bytes:
        """What came of the body, without its framing."""
        if self.ended:
            return b""
        data, self._unread = self._unread, b""
        piece = self._body.feed(data)
        if self._body.ended:
            self.ended = True
            self.keeps = self.keeps and not self._body.rest
        return piece

    def _read_heads(self, *, is_all: bool) -> None:
        while self.head is None:
            if not b"HTTP/1.".startswith(self._unread[:7]):
                raise Garbled("it does not speak HTTP/1.1")
            text, end, rest = self._unread.partition(b"\r\n\r\n")
            if self._num_skipped + len(text) > MAX_HEAD_BYTES:
                raise Garbled("the head of its answer is too long")
            if not end and is_all:
                raise Garbled("it closed the connection without an answer")
            if not end:
                return
            self._num_skipped, self._unread = self._num_skipped + len(text) + len(end), rest
            self._take_head(text)

    def _take_head(self, text: bytes) -> None:
        version, head = read_head(text)
        if head.status < 200 and head.status != SWITCHED:
            return
        self._body = body_of(version, head)
        self.keeps = version == VERSIONS[0] and "close" not in head.words("connection")
        self.head = head


def read_head(text: bytes) -> tuple[bytes, Head]:
    """The version, and the rest of a head that is here whole, without its last line break."""
    first, *lines = text.split(b"\r\n")
    version, _, told = first.partition(b" ")
    status, space = told[:3], told[3:4]
    if version not in VERSIONS or len(status) != 3 or not status.isdigit() or space not in b" ":
        raise Garbled("its answer has no status")
    if text.count(b"\n") != len(lines) or text.count(b"\r") != len(lines) or b"\0" in text:
        raise Garbled("a header of its answer is malformed")
    return version, Head(int(status), [read_header(line) for line in lines])


def read_header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, TOKEN):
        raise Garbled("a header of its answer is malformed")
    return name.decode().lower(), value.strip(b" \t").decode("latin-1")


# -- bodies ------------------------------------------------------------------------------------------


class Body(Protocol):
    """The body of one answer.  `rest` is what came behind its end."""

    ended: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """What `data`, which may be empty, hold of the body, without its framing."""

    def cut(self) -> None:
        """The connection has ended; Garbled where the body has not."""


def body_of(version: bytes, head: Head) -> Body:
    lengths, codings = set(head.words("content-length")), head.words("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Garbled("its answer is framed in two ways")
    if head.status in (SWITCHED, NO_CONTENT, NOT_MODIFIED):
        return Sized(0)
    if codings:
        if codings != ["chunked"] or version != VERSIONS[0]:
            raise Garbled("its answer is framed in a way that nobody knows")
        return Chunked()
    return Sized(size_of(lengths.pop())) if lengths else ToTheEnd()


def size_of(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_DIGITS:
        raise Garbled("the length of its answer is no number")
    return int(text)


@define(eq=False)
class Sized:
    _left: int
    ended: bool = field(default=False, init=False)
    rest: bytes = field(default=b"", init=False)

    def feed(self, data: bytes) -> bytes:
        piece, self.rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        self.ended = not self._left
        return piece

    def cut(self) -> None:
        raise Garbled("it closed the connection in the middle of its answer")


@define(eq=False)
class ToTheEnd:
    """Whatever comes until the connection is closed."""

    ended: bool = field(default=False, init=False)
    rest: bytes = field(default=b"", init=False)

    def feed(self, data: bytes) -> bytes:
        return data

    def cut(self) -> None:
        self.ended = True


@define(eq=False)
class Chunked:
    """RFC 9112, 7.1; extensions and trailers are skipped."""

    ended: bool = field(default=False, init=False)
    rest: bytes = field(default=b"", init=False)
    _unread: bytes = field(default=b"", init=False)
    _left: int = field(default=0, init=False)  # of the chunk in hand, with its line break
    _num_trailing: int = field(default=0, init=False)  # bytes behind the last chunk; 0 before it

    def feed(self, data: bytes) -> bytes:
        data, at = self._unread + data, 0
        pieces: list[bytes] = []
        while not self.ended:
            if not self._left:
                begin = self._read_line(data, at)
                if begin == at:
                    break
                at = begin
                continue
            end = at + self._left
            if end > len(data):
                pieces.append(data[at : end - 2])
                at += len(pieces[-1])
                self._left = end - at
                break
            if data[end - 2 : end] != b"\r\n":
                raise Garbled("a chunk of its answer is longer than it says")
            pieces.append(data[at : end - 2])
            at, self._left = end, 0
        self._unread = data[at:]
        if self.ended:
            self.rest = self._unread
        return b"".join(pieces)

    def cut(self) -> None:
        raise Garbled("it closed the connection in the middle of its answer")

    def _read_line(self, data: bytes, begin: int) -> int:
        """The line at `begin`, between two chunks or behind the last; where the next one begins, `begin`
        if it is not complete."""
        end = data.find(b"\r\n", begin)
        if end - begin > MAX_SIZE_LINE or (end < 0 and len(data) - begin > MAX_SIZE_LINE):
            raise Garbled("a line between the chunks of its answer is too long")
        if end < 0:
            return begin
        if self._num_trailing:
            self._skip_trailer(end - begin)
        elif size := chunk_size(data[begin:end]):
            self._left = size + 2
        else:
            self._num_trailing = 1
        return end + 2

    def _skip_trailer(self, length: int) -> None:
        self.ended = not length
        self._num_trailing += length + 2
        if self._num_trailing > MAX_HEAD_BYTES:
            raise Garbled("its answer has no end")


def chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not digits or digits.translate(None, HEX) or len(digits) > MAX_DIGITS:
        raise Garbled("a chunk of its answer has no size")
    return int(digits, 16)
