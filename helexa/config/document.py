"""A TOML file as read: its data, and how a mistake in it is shown to a person."""

import json
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import field, frozen

from helexa.config.lines import KeyPath, Lines
from helexa.config.structure import ABSENT, Mistake, Unknown
from helexa.errors import ConfigError
from helexa.escape import escape

MOST_BYTES = 1 << 20
LONGEST_SHOWN = 100
SECRETS = ("token", "key", "key_hash")
SECRET = re.compile(rf"(\b(?:{'|'.join(SECRETS)})\b[\"']?\s*=\s*)\S.*")
CREDENTIALS = re.compile(r"://[^/\s\"']*@")
ANY_VALUE = re.compile(r"(=\s*)\S.*")
HIDDEN = r"\1(hidden)"
PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")


@frozen
class Document:
    """The data of one file, and the environment variables that took the place of some of it."""

    name: str = ""
    data: dict[str, Any] = field(factory=dict)
    lines: Lines = field(factory=lambda: Lines(""))
    variables: Mapping[KeyPath, str] = field(factory=dict)

    def show(self, mistake: Mistake) -> str:
        """`conf/helexa.toml:12: gateway.listen: expected ..., got ...`, and that line below it."""
        where = ": ".join(part for part in (self._where(mistake), dotted(mistake.path)) if part)
        got = "" if mistake.value is ABSENT else f", got {shown(mistake.path, mistake.value)}"
        return f"{where}: {mistake.text}{got}{self._context(mistake)}"

    def order(self, mistake: Mistake) -> tuple[bool, int, str]:
        """Sorts by line; what the environment says comes last."""
        from_environment = self.variable(mistake.path) is not None
        return from_environment, self.lines.of(mistake.path) or 0, dotted(mistake.path)

    def variable(self, path: KeyPath) -> str | None:
        """The variable that put a value at, above or, where the file has nothing, below `path`."""
        for place, name in self.variables.items():
            is_only_source = place[: len(path)] == path and not self.lines.has(path)
            if path[: len(place)] == place or is_only_source:
                return name
        return None

    def _where(self, mistake: Mistake) -> str:
        if name := self.variable(mistake.path):
            return escape(name)
        number = self.lines.of(mistake.path)
        return f"{self.name}:{number}" if number else self.name

    def _context(self, mistake: Mistake) -> str:
        number = self.lines.of(mistake.path)
        if number is None or self.variable(mistake.path):
            return ""
        line = self.lines.text(number)
        if isinstance(mistake, Unknown) and resembles_secret(str(mistake.path[-1])):
            line = ANY_VALUE.sub(HIDDEN, line)
        return context(number, line)


def read_document(path: Path) -> Document:
    """The file at `path`; ConfigError where it cannot be read or is not TOML."""
    name = escape(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{name}: cannot be read: {error.strerror}"]) from None
    if len(raw) > MOST_BYTES:
        raise ConfigError([f"{name}: is larger than 1 MiB, which no configuration is"])
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{name}:{number}: is not UTF-8 text"]) from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([syntax_mistake(name, text, str(error))]) from None
    return Document(name, data, Lines(text))


def syntax_mistake(name: str, text: str, message: str) -> str:
    lines = text.split("\n")
    place = PLACE.search(message)
    number = int(place[1]) if place and place[1] else len(text.rstrip("\n").split("\n"))
    said = escape(PLACE.sub("", message))
    return f"{name}:{number}: is not TOML: {said}{context(number, lines[number - 1])}"


def context(number: int, line: str) -> str:
    line = escape(CREDENTIALS.sub("://(hidden)@", SECRET.sub(HIDDEN, line)).rstrip())
    return f"\n    {number:>4} | {line[:LONGEST_SHOWN]}"


def resembles_secret(name: str) -> bool:
    """Whether a name that nobody knows may be a secret's, misspelt."""
    words = (*SECRETS, "secret", "password")
    return bool(get_close_matches(name, words)) or any(word in name for word in words)


def dotted(path: KeyPath) -> str:
    """`node.devices[1].uuid`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{escape(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def shown(path: KeyPath, value: Any) -> str:
    """A value as TOML would write it, unless it is a secret."""
    if any(part in SECRETS for part in path):
        return "something else"
    if isinstance(value, dict):
        return "a table"
    text = escape(json.dumps(value, ensure_ascii=False, default=str))
    text = CREDENTIALS.sub("://(hidden)@", text)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
