"""The tokens that close what is open in JSON."""

from collections.abc import Mapping

from attrs import field, frozen

BRACKETS, QUOTE, BETWEEN = frozenset(b"}]"), b'"', (b",", b":", b", ", b": ")


@frozen
class Closers:
    """Sets of token ids, each as the bits of a number.

    `brackets` are only brackets; `strings` begin with a quote and go on with brackets at most; `others`
    lead on to where something can be closed.  Where both of `text` may come, a string is open.
    """

    brackets: int = field(repr=False)
    strings: int = field(repr=False)
    others: int = field(repr=False)
    text: int = field(repr=False)

    @classmethod
    def of(cls, ids: Mapping[bytes, int]) -> "Closers":
        brackets = strings = others = 0
        for octets, id in ids.items():
            if not set(octets) - BRACKETS:
                brackets |= 1 << id
            elif octets[:1] == QUOTE and not set(octets[1:]) - BRACKETS:
                strings |= 1 << id
            elif octets in BETWEEN:
                others |= 1 << id
        both = [ids[octets] for octets in (b"}", b"]") if octets in ids]
        return cls(brackets, strings, others, sum(1 << id for id in both))

    def among(self, allowed: int) -> int:
        """Those of `allowed` that close the most; all of them if none closes anything."""
        in_string = self.text and allowed & self.text == self.text
        first = self.strings if in_string else self.brackets
        for closers in (first, self.strings, self.others):
            if some := allowed & closers:
                return some
        return allowed
