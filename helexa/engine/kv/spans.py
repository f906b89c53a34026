"""Which positions of the KV pool are taken: contiguous spans, in blocks."""

from bisect import insort

BLOCK = 64  # tokens


def rounded(tokens: int) -> int:
    """As many as whole blocks hold."""
    return -(-tokens // BLOCK) * BLOCK


class Spans:
    """The free spans of a pool of `total` positions, a multiple of BLOCK, and so are all sizes.

    A span is contiguous so that attention reads a sequence's keys and values as they lie.
    """

    def __init__(self, total: int) -> None:
        self._free = [(0, total)] if total else []  # (start, size), in order, none touching another

    @property
    def free(self) -> int:
        return sum(size for _, size in self._free)

    def take(self, size: int) -> int | None:
        """The start of a span that is now taken, from the smallest gap that has room; None if none has."""
        gaps = [(room, start) for start, room in self._free if room >= size]
        if not gaps:
            return None
        room, start = min(gaps)
        self._cut(start, room, size)
        return start

    def extend(self, end: int, size: int) -> bool:
        """Take the positions right behind `end` if they are free."""
        for start, room in self._free:
            if start == end and room >= size:
                self._cut(start, room, size)
                return True
        return False

    def give(self, start: int, size: int) -> None:
        """Free a span, or the end of one."""
        if not size:
            return
        insort(self._free, (start, size))
        place = self._free.index((start, size))
        for left in (place, place - 1):
            if 0 <= left < len(self._free) - 1:
                (a, n), (b, m) = self._free[left : left + 2]
                if a + n == b:
                    self._free[left : left + 2] = [(a, n + m)]

    def _cut(self, start: int, room: int, size: int) -> None:
        place = self._free.index((start, room))
        self._free[place : place + 1] = [(start + size, room - size)] if room > size else []


def packed(spans: list[tuple[int, int]], last: int) -> list[int]:
    """The starts that leave no gap: all in the order they lie, number `last` behind the others."""
    order = sorted(range(len(spans)), key=lambda i: (i == last, spans[i][0]))
    starts = [0] * len(spans)
    end = 0
    for i in order:
        starts[i] = end
        end += spans[i][1]
    return starts
