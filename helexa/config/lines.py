"""Where in a TOML file a key stands: `tomllib` reads values, and this finds their lines."""

import tomllib
from collections.abc import Iterator
from typing import Any, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]  # ("node", "devices", 1, "uuid")


class Lines:
    """The line, counted from 1, of every table and key of a valid TOML text."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._at: dict[KeyPath, int] = {}
        self._last: dict[KeyPath, int] = {}  # of each array of tables, its last element
        table: KeyPath = ()
        for number, statement in statements(self._lines):
            parsed = tomllib.loads(statement)
            if statement.lstrip().startswith("["):
                table = self._enter(parsed, number)
            else:
                self._note(table, parsed, number)

    def of(self, path: KeyPath) -> int | None:
        """The line of `path`, else that of the nearest thing around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._at:
                return self._at[path[:end]]
        return None

    def has(self, path: KeyPath) -> bool:
        return path in self._at

    def text(self, number: int) -> str:
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def _enter(self, header: Any, number: int) -> KeyPath:
        """The table that a header such as `[a.b]` or `[[a.b]]` opens."""
        path: KeyPath = ()
        while header:
            if isinstance(header, list):
                self._last[path] = self._last.get(path, -1) + 1
                path, header = (*path, self._last[path]), header[0]
            else:
                if path in self._last:
                    path = (*path, self._last[path])
                name, header = next(iter(header.items()))
                path = (*path, name)
            self._at.setdefault(path, number)
        return path

    def _note(self, path: KeyPath, value: Any, number: int) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                self._at.setdefault((*path, key), number)
                self._note((*path, key), inner, number)


def statements(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Each header or `key = value` with the line it begins on.

    A statement is complete at the first line where it parses: a line break inside one stands only
    in a multi-line text or array, which is unfinished until it ends.
    """
    begin, held = 1, ""
    for number, line in enumerate(lines, 1):
        begin = begin if held else number
        held += line + "\n"
        try:
            found = tomllib.loads(held)
        except tomllib.TOMLDecodeError:
            continue
        if found:
            yield begin, held
        held = ""
