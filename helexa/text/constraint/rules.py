"""Writing a grammar in llguidance's dialect of Lark, rule by rule."""

import json
from collections.abc import Iterable

from attrs import field, frozen

from helexa.text.tokenizer import Tokenizer

ANYTHING = "/(?s:.*)/"
NOTHING = '""'


@frozen
class Rules:
    """Gathers rules; `add` gives the name by which others refer to the new one.

    `markers` are the texts that a tokeniser may have as single special tokens: where it does, no other
    tokens spell them.
    """

    tokenizer: Tokenizer
    markers: tuple[str, ...] = ()
    _rules: list[str] = field(factory=list, init=False)

    def add(self, body: str, options: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def add_terminal(self, body: str) -> str:
        name = f"T{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def text(self, start: str) -> str:
        """The whole grammar; `start` is what it begins with."""
        return "\n".join([f"start: {start}", *self._rules])

    # -- expressions -------------------------------------------------------------------------------

    def spell(self, text: str) -> str:
        """`text` as tokens: its markers as special tokens, the rest as any tokens that spell it."""
        return sequence(map(self._atom, cut(text, self.markers)))

    def until(self, end: str, *limits: str) -> str:
        """Text, then `end`, the first there is.  `limits` are terminals that all match the text."""
        if not limits and self._is_special(end):
            return sequence([ANYTHING, self._atom(end)])
        text = self.add_terminal(" & ".join(limits or (ANYTHING,)))
        return self.add(self.add_terminal(f"{text} {quote(end)}"), "[lazy]")

    def _atom(self, text: str) -> str:
        id = self.tokenizer.token_id(text) if self._is_special(text) else None
        return quote(text) if id is None else f"<[{id}]>"

    def _is_special(self, text: str) -> bool:
        return self.tokenizer.token_id(text) in self.tokenizer.special_ids


def cut(text: str, markers: Iterable[str]) -> list[str]:
    """`text` in pieces, each a marker or free of them."""
    for marker in markers:
        before, found, after = text.partition(marker)
        if found:
            return [*cut(before, markers), marker, *cut(after, markers)]
    return [text] if text else []


def sequence(parts: Iterable[str]) -> str:
    return " ".join(part for part in parts if part)


def either(parts: Iterable[str]) -> str:
    return f"({' | '.join(parts)})"


def quote(text: str) -> str:
    return json.dumps(text) if text else NOTHING


SPELLED = frozenset(r"\.+*?()|[]{}^$#&-~/")


def pattern_of(text: str) -> str:
    """The regular expression, between slashes, that matches `text` alone."""
    return "".join(f"\\{c}" if c in SPELLED else escaped(c) for c in text)


def escaped(character: str) -> str:
    return character if character.isprintable() else f"\\x{{{ord(character):x}}}"
