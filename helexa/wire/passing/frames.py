"""Where the frames of an event stream end, in bytes that are not read otherwise."""

from collections.abc import Sequence

LF, CRLF = b"\n\n", b"\r\n\r\n"


def last_end(data: bytes, start: int) -> int:
    """Where the last complete frame ends that ends after `start`; 0 for none."""
    lf, crlf = data.rfind(LF, start), data.rfind(CRLF, start)
    return max(lf + len(LF) if lf >= 0 else 0, crlf + len(CRLF) if crlf >= 0 else 0)


def count(data: bytes) -> int:
    return data.count(LF) + data.count(CRLF)


def end_of(data: bytes, begin: int) -> int:
    """Where the frame ends that begins at `begin`; the last may have no end."""
    lf, crlf = data.find(LF, begin), data.find(CRLF, begin)
    ends = [lf + len(LF)] * (lf >= 0) + [crlf + len(CRLF)] * (crlf >= 0)
    return min(ends, default=len(data))


class Marked:
    """Finds the frames that hold a mark, reading the data once for each mark."""

    def __init__(self, data: bytes, marks: Sequence[bytes]) -> None:
        self._data = data
        self._places = {mark: data.find(mark) for mark in marks}

    def next(self, begin: int) -> int:
        """Where the next such frame begins, not before `begin`, where one does; else the data's end."""
        for mark, place in self._places.items():
            if 0 <= place < begin:
                self._places[mark] = self._data.find(mark, begin)
        first = min((place for place in self._places.values() if place >= 0), default=-1)
        if first < 0:
            return len(self._data)
        lf, crlf = (self._data.rfind(end, begin, first) for end in (LF, CRLF))
        return max(begin, lf + len(LF) if lf >= 0 else 0, crlf + len(CRLF) if crlf >= 0 else 0)
