"""The input of a custom tool, taken out of arguments that come in pieces."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.wire.openai_responses.partial import InputReader, read_input

ARGUMENTS = st.one_of(
    st.text(max_size=30),
    st.text(max_size=30).map(lambda text: json.dumps({"input": text})),
    st.text(max_size=30).map(lambda text: orjson.dumps({"input": text}).decode()),
    st.text(alphabet='\\u"dDcC8300ab{}:, ', max_size=30).map(lambda text: '{"input": "' + text),
)


@given(st.text(), st.booleans(), st.sampled_from(["", " ", "\n  "]))
def test_any_text_is_found_however_it_is_escaped(text: str, ascii_only: bool, space: str) -> None:
    written = json.dumps(text, ensure_ascii=ascii_only)
    assert read_input(f'{space}{{{space}"input"{space}:{space}{written}{space}}}') == text


@given(ARGUMENTS, st.data())
def test_every_split_gives_the_same_input(arguments: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=6)))
    ends = zip([0, *places], [*places, len(arguments)], strict=True)
    reader = InputReader()
    told = "".join([reader.push(arguments[begin:end]) for begin, end in ends])
    assert told + reader.finish() == read_input(arguments)


@given(ARGUMENTS)
def test_the_input_can_always_be_written(arguments: str) -> None:
    orjson.dumps(read_input(arguments))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", ""),
        ("*** Begin Patch", "*** Begin Patch"),
        ('{"patch": "x"}', '{"patch": "x"}'),
        ('{"why": "so", "input": "x"}', "x"),
        ('{"input": 3}', '{"input": 3}'),
        ('{"input": "line\nbreak \\"as it is\\""}', 'line\nbreak "as it is"'),
        ('{"input": "cut off \\u00', "cut off "),
        ('{"input": "x"} and more', "x"),
        ('"x"', '"x"'),
    ],
)
def test_arguments_as_models_write_them(arguments: str, wanted: str) -> None:
    assert read_input(arguments) == wanted
