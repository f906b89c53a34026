"""What a model says beside its calls, without the white space around them."""

from collections.abc import Callable, Iterator

from helexa.text.markup.outputs import Output, Say, Think
from helexa.text.markup.source import SPACE

Wrap = Callable[[str, int], Say | Think]


class Speech:
    """Text in pieces.  White space is told once more text follows, or at the end of the answer.

    `said` tells whether there was more than white space; `starts_line` whether what comes next is the
    first of its line.  `trimmed` are the characters that are left out before the first text.
    """

    def __init__(self, wrap: Wrap, trimmed: str = "", *, continues: bool = False) -> None:
        self.said = continues
        self.starts_line = not continues
        self._wrap = wrap
        self._trimmed = trimmed
        self._space: list[str] = []
        self._begin = 0  # of the white space

    def say(self, text: str, begin: int) -> Iterator[Output]:
        if self._trimmed and not self._space:
            begin += len(text)
            text = text.lstrip(self._trimmed)
            begin -= len(text)
        certain = text.rstrip(SPACE)
        if certain:
            held = "".join(self._space)
            self.said, self.starts_line, self._trimmed, self._space = True, False, "", []
            yield self._wrap(held + certain, begin - len(held))
        if space := text[len(certain) :]:
            if not self._space:
                self._begin = begin + len(certain)
            self._space.append(space)
            self.starts_line = self.starts_line or "\n" in space

    def restart(self, trimmed: str) -> None:
        """Something else came: the white space on either side of it is left out."""
        self._space, self._trimmed, self.starts_line = [], trimmed, True

    def finish(self) -> Iterator[Output]:
        if self._space and not self._trimmed:
            yield self._wrap("".join(self._space), self._begin)
        self._space = []
