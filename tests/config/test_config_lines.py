import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.config.lines import Lines

TEXT = '''# a comment
[node]
name = "x" # more
trusted_peers = [
    "10.0.0.1",  # [not.a.table]
    "10.0.0.2",
]

[[node.devices]]
uuid = "a"
[[node.devices]]
uuid = """
[gateway]
b"""
reserve_mb = 5
[models]
"quoted.key" = 1
dotted.inner.key = 2
inline = { a = 1, b = { c = 2 } }
[[models.list]]
[models.list.sub]
x = 1
[[models.list.deep]]
[[models.list]]
[[models.list.deep]]
y = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("node",), 2),
        (("node", "name"), 3),
        (("node", "trusted_peers"), 4),
        (("node", "trusted_peers", 1), 4),
        (("node", "devices"), 9),
        (("node", "devices", 0, "uuid"), 10),
        (("node", "devices", 1), 11),
        (("node", "devices", 1, "uuid"), 12),
        (("node", "devices", 1, "reserve_mb"), 15),
        (("node", "devices", 1, "missing"), 11),
        (("models", "quoted.key"), 17),
        (("models", "dotted", "inner", "key"), 18),
        (("models", "inline", "b", "c"), 19),
        (("models", "list", 0, "sub", "x"), 22),
        (("models", "list", 0, "deep", 0), 23),
        (("models", "list", 1, "deep", 0, "y"), 26),
        (("gateway", "listen"), None),
        ((), None),
    ],
)
def test_a_path_is_found_on_the_line_where_it_stands(
    path: tuple[str | int, ...], line: int | None
) -> None:
    assert tomllib.loads(TEXT)
    assert Lines(TEXT).of(path) == line


keys = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Z"]), max_size=8)
leaves = st.one_of(st.integers(), st.booleans(), st.text(max_size=10))


@given(st.dictionaries(keys, st.dictionaries(keys, leaves, max_size=4), max_size=4))
def test_every_key_of_a_written_file_is_found_on_its_own_line(data: dict[str, Any]) -> None:
    written: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for section, options in data.items():
        written.append(f"[{quoted(section)}]")
        expected[(section,)] = len(written)
        for key, value in options.items():
            written.append(f"{quoted(key)} = {quoted(value)}")
            expected[(section, key)] = len(written)
    lines = Lines("\n".join(written))
    assert {path: lines.of(path) for path in expected} == expected


def quoted(value: Any) -> str:
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    return str(value).lower()
