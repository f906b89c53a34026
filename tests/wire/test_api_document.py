"""docs/api.md says what the code does."""

from collections.abc import Iterator
from pathlib import Path

from helexa.errors import HelexaError
from helexa.wire.schemas import chat_request

DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def every(kind: type[HelexaError]) -> Iterator[type[HelexaError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from every(narrower)


def test_every_field_of_a_request_is_documented() -> None:
    fields = set(chat_request()["properties"]) - {"stream_options"}
    assert {field for field in fields if f"`{field}`" not in DOCUMENT} == set()


def test_every_error_is_documented_with_its_status_and_type() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| ")]
    for error in every(HelexaError):
        if error.__module__ == "helexa.errors":
            code = "null" if error.code is None else f"`{error.code}`"
            told = [
                row for row in rows if f"| {error.status} | `{error.type}` |" in row and code in row
            ]
            assert told, f"{error.__name__} ({error.status}, {error.type}, {error.code})"
