"""Overrides from the environment: `HELEXA_SECTION__KEY=value`, the value as TOML, else as text."""

import tomllib
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import evolve

from helexa.config.document import Document
from helexa.config.lines import KeyPath

PREFIX = "HELEXA_"


def override(document: Document, environ: Mapping[str, str], kind: type) -> Document:
    """`document` with what the environment says of the options of `kind` in its place."""
    data, variables = document.data, {}
    for name in sorted(environ):
        path = path_of(name)
        if path:
            data = put(data, path, value_of(environ[name], is_text(kind, path)))
            variables[path] = name
    return evolve(document, data=data, variables=variables)


def path_of(name: str) -> KeyPath:
    """`HELEXA_NODE__MEMORY_MB` is ("node", "memory_mb"); a name without `__` is no override."""
    rest = name.removeprefix(PREFIX)
    if rest == name or "__" not in rest:
        return ()
    return tuple(part.lower() for part in rest.split("__"))


def value_of(text: str, is_text: bool) -> Any:
    """What `text` means in TOML; itself if that is nothing, or if only text will do."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    wrong = len(parsed) > 1 or (is_text and not isinstance(value, str))
    return text if wrong else value


def is_text(kind: Any, path: KeyPath) -> bool:
    """Whether the option at `path` holds text, so that a token of digits needs no quotes."""
    for part in path:
        fields = attrs.fields_dict(kind) if attrs.has(kind) else {}
        if part not in fields:
            return False
        kind = fields[part].type
    return kind is str


def put(data: Mapping[str, Any], path: KeyPath, value: Any) -> dict[str, Any]:
    """A copy of `data` with `value` at `path`."""
    name, *rest = path
    inner = data.get(str(name))
    if rest:
        value = put(inner if isinstance(inner, dict) else {}, tuple(rest), value)
    return {**data, str(name): value}
