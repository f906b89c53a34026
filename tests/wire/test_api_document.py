"""docs/api.md says what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helexa.errors import HelexaError
from helexa.wire.openapi import description

DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
DESCRIPTION = description("gateway")


def every(kind: type[HelexaError]) -> Iterator[type[HelexaError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from every(narrower)


@pytest.mark.parametrize(
    "request_name", ["ChatRequest", "CompletionRequest", "ResponseRequest", "MessagesRequest"]
)
def test_every_field_of_a_request_is_documented(request_name: str) -> None:
    fields = set(DESCRIPTION["components"]["schemas"][request_name]["properties"])
    told = set(re.findall(r"`([a-z_]+)[.`]", DOCUMENT))
    assert fields - told == set()


def test_every_route_of_the_api_is_documented() -> None:
    for path, methods in DESCRIPTION["paths"].items():
        for method in methods:
            said = rf"{method.upper()}`?(?: and `[A-Z]+)? {re.escape(path)}[`\n]"
            assert path == "/openapi.json" or re.search(said, DOCUMENT), (method, path)


def test_every_error_is_documented_with_its_status_and_type() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| ")]
    for error in every(HelexaError):
        if error.__module__ == "helexa.errors":
            code = "null" if error.code is None else f"`{error.code}`"
            told = [
                row for row in rows if f"| {error.status} | `{error.type}` |" in row and code in row
            ]
            assert told, f"{error.__name__} ({error.status}, {error.type}, {error.code})"
