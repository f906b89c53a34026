r"""What goes over the control socket: lines of JSON, one question per connection.  Pure.

```
{"verb": "load", "args": {"model": "demo"}}                     from the client, then it only listens
{"item": {"message": "..."}}                                    to the client, none or many
{"end": true}  or  {"error": {"message": "...", "code": "..."}} to the client, last
```
A client that closes its end is gone: what it asked for is cancelled.
"""

import json
from typing import Any

from helexa.errors import InvalidRequest

LONGEST_REQUEST = 64 * 1024  # bytes

Json = Any


class Args:
    """The arguments of one question; InvalidRequest names the one that does not fit."""

    def __init__(self, values: dict[str, Json]) -> None:
        self._values = values

    def has(self, name: str) -> bool:
        return name in self._values

    def value(self, name: str) -> Json:
        """As it came, None if it did not; the caller checks it."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        value = self.optional_text(name)
        if not value:
            raise InvalidRequest(f"{name} is missing", param=name)
        return value

    def optional_text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{name} must be text", param=name)
        return value

    def flag(self, name: str) -> bool:
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise InvalidRequest(f"{name} must be true or false", param=name)
        return value

    def number(self, name: str, default: float, most: float) -> float:
        """A number from 0 to `most`."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise InvalidRequest(f"{name} must be a number from 0 to {most:g}", param=name)
        return value


def parse_request(line: bytes) -> tuple[str, Args]:
    """The verb and its arguments; InvalidRequest for anything else."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidRequest("a request is one line of JSON") from None
    verb, args = (data.get("verb"), data.get("args", {})) if isinstance(data, dict) else (None, {})
    if not isinstance(verb, str) or not isinstance(args, dict):
        raise InvalidRequest('a request is {"verb": "...", "args": {...}}')
    return verb, Args(args)


def item_line(item: Json) -> bytes:
    return as_line({"item": item})


def end_line() -> bytes:
    return as_line({"end": True})


def error_line(message: str, code: str | None) -> bytes:
    """A refusal; only the mistakes of a configuration have more than one line."""
    return as_line({"error": {"message": message, "code": code}})


def as_line(value: Json) -> bytes:
    return json.dumps(value).encode() + b"\n"
