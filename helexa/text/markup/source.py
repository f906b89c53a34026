"""A model's text as it comes, read as if it were all there.

A reader is a generator: it yields its outputs, and None when it needs more text.  Written so, it
cannot tell how the text was cut into pieces.
"""

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from helexa.text.markup.outputs import Call, Output
from helexa.text.stops import Automaton

T = TypeVar("T")
Reading = Generator[Output | None, None, T]

SPACE = " \t\r\n"


class Source:
    """`position` counts the characters that were taken.  `ended` says that no more will come, `cut`
    that the model had more to say.

    What is taken after `mark` can be had back as text until a call comes of it.
    """

    def __init__(self) -> None:
        self.ended = False
        self.cut = False
        self.thinking = False
        self.num_calls = 0
        self._text = ""
        self._at = 0
        self._dropped = 0  # characters before _text
        self._taken: list[str] | None = None
        self.marked_at = 0

    @property
    def position(self) -> int:
        return self._dropped + self._at

    @property
    def unread(self) -> str:
        return self._text[self._at :]

    def feed(self, text: str) -> None:
        self._dropped += self._at
        self._text = self._text[self._at :] + text
        self._at = 0

    def take(self, count: int) -> str:
        taken = self._text[self._at : self._at + count]
        self._at += count
        if self._taken is not None:
            self._taken.append(taken)
        return taken

    def back(self, count: int) -> None:
        """Give back what `until` has just taken as its mark."""
        self._at -= count

    # -- text that may turn out to be no call --------------------------------------------------------

    def mark(self) -> None:
        """Remember what is taken from here on."""
        self._taken = []
        self.marked_at = self.position

    def forget(self) -> None:
        self._taken = None

    def returned(self) -> str:
        """What was taken since the mark and became nothing; forgets it."""
        taken, self._taken = self._taken, None
        return "".join(taken or ())

    def call(self, name: str) -> Reading[None]:
        """A call begins: what led to it is no text."""
        self.forget()
        self.num_calls += 1
        yield Call(name)

    # -- reading -----------------------------------------------------------------------------------

    def peek(self) -> Reading[str]:
        """The next character; "" at the end."""
        while self._at == len(self._text):
            if self.ended:
                return ""
            yield None
        return self._text[self._at]

    def skip(self, characters: str = SPACE) -> Reading[str]:
        """Take what consists of `characters`; the next character, "" at the end."""
        while (character := (yield from self.peek())) and character in characters:
            self.take(1)
        return character

    def word(self, accepts: Callable[[str], bool], most: int) -> Reading[str]:
        """Take characters while they are accepted, `most` at most."""
        taken = ""
        while len(taken) < most and (character := (yield from self.peek())):
            if not accepts(character):
                break
            taken += self.take(1)
        return taken

    def starts(self, *marks: str) -> Reading[str]:
        """Which of `marks` comes next, the longest of them, or "".  Takes nothing."""
        while True:
            unread = self._text[self._at : self._at + max(map(len, marks))]
            found = max((mark for mark in marks if unread.startswith(mark)), key=len, default="")
            can_grow = any(
                mark.startswith(unread) and len(unread) < len(mark) > len(found) for mark in marks
            )
            if self.ended or not can_grow:
                return found
            yield None

    def next(self, *marks: str) -> Reading[str]:
        """Take whichever of `marks` comes next; "" if none of them does."""
        found = yield from self.starts(*marks)
        self.take(len(found))
        return found

    def until(self, marks: Automaton, tell: Callable[[str, int], Iterable[Output]]) -> Reading[str]:
        """Take the text before the first of `marks`, and it; `tell` makes outputs of the text.

        The mark, or "" where the text ends without.  `tell` also gets where a text begins.
        """
        state, known = 0, 0  # how the unread text looks up to `known`
        while True:
            length, state, known = self._find(marks, state, known)
            certain = known - (length or marks.depth[state])
            if certain:
                begin = self.position
                yield from tell(self.take(certain), begin)
                known -= certain
            if length:
                return self.take(length)
            if self.ended:
                begin = self.position
                if rest := self.take(known):
                    yield from tell(rest, begin)
                return ""
            yield None

    def _find(self, marks: Automaton, state: int, known: int) -> tuple[int, int, int]:
        """The length of the mark that ends first, 0 without; the state; how far it has looked."""
        text, begin = self._text, self._at + known
        if not state and marks.first.isdisjoint(text[begin:]):
            return 0, 0, len(text) - self._at
        for i in range(begin, len(text)):
            state = marks.step(state, text[i])
            if marks.ending[state]:
                return marks.ending[state], state, i + 1 - self._at
        return 0, state, len(text) - self._at


def collected(source: Source, marks: Automaton) -> Reading[tuple[str, str]]:
    """The text before the first of `marks`, and the mark ("" at the end)."""
    pieces: list[str] = []

    def keep(text: str, _: int) -> Iterable[Output]:
        pieces.append(text)
        return ()

    mark = yield from source.until(marks, keep)
    return "".join(pieces), mark
