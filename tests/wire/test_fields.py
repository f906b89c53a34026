from collections.abc import Callable

import orjson
import pytest

from helexa.conversation import Json
from helexa.errors import InvalidRequest
from helexa.wire.fields import MAX_BRACKETS, MAX_DEPTH, Fields, parse_json, size_within


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b"[1]",
        b"null",
        b'"text"',
        b"\xef\xbb\xbf{}",
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_json(body)


def test_of_a_duplicate_key_the_last_one_counts() -> None:
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    ("read", "value", "param"),
    [
        (lambda fields: fields.text("a"), 3, "a"),
        (lambda fields: fields.text("a", 3), "abcd", "a"),
        (lambda fields: fields.required_text("a"), None, "a"),
        (lambda fields: fields.flag("a"), 1, "a"),
        (lambda fields: fields.integer("a", 0, 9), True, "a"),
        (lambda fields: fields.integer("a", 0, 9), 1.5, "a"),
        (lambda fields: fields.integer("a", 0, 9), 10, "a"),
        (lambda fields: fields.integer("a", 0, 2**63), 10.0**30, "a"),
        (lambda fields: fields.number("a", 0, 1), "0.5", "a"),
        (lambda fields: fields.number("a", 0, 1), 1.5, "a"),
        (lambda fields: fields.number("a", 0, 1, above_low=True), 0, "a"),
        (lambda fields: fields.array("a", 2), [1, 2, 3], "a"),
        (lambda fields: fields.array("a", 2), {}, "a"),
        (lambda fields: fields.object("a"), [], "a"),
        (lambda fields: fields.required_object("a"), None, "a"),
        (lambda fields: fields.objects("a", 9), [{}, 1], "a[1]"),
        (lambda fields: fields.objects("a", 9)[1].text("b"), [{}, {"b": 1}], "a[1].b"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(
    read: Callable[[Fields], object], value: Json, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(Fields({"a": value}))
    assert refused.value.param == param
    assert f"`{param}`" in refused.value.message


def test_a_field_that_is_missing_or_null_reads_as_none() -> None:
    fields = Fields({"null": None})
    for key in ("null", "missing"):
        assert fields.text(key) is None
        assert fields.flag(key) is None
        assert fields.integer(key, 0, 1) is None
        assert fields.number(key, 0, 1) is None
        assert fields.array(key, 1) is None
        assert fields.object(key) is None
        assert fields.json_object(key) is None
        assert not fields.has(key)


def test_an_integer_may_be_written_with_a_fraction_of_zero() -> None:
    assert Fields({"a": 2.0}).integer("a", 0, 9) == 2


def test_what_is_passed_on_is_bounded_in_bytes() -> None:
    with pytest.raises(InvalidRequest) as refused:
        Fields({"a": {"b": "x" * 1_100_000}}).json_object("a")
    assert refused.value.param == "a"


def test_texts_are_strings_all() -> None:
    assert Fields({"a": ["b", "c"]}).texts("a", 2) == ["b", "c"]
    with pytest.raises(InvalidRequest) as refused:
        Fields({"a": ["b", 1]}).texts("a", 2)
    assert refused.value.param == "a[1]"


def test_json_that_is_passed_on_is_bounded_in_depth() -> None:
    for levels in (MAX_DEPTH, MAX_DEPTH + 1):
        deep = parse_json(b'{"a":' * levels + b"{}" + b"}" * levels)
        if levels == MAX_DEPTH:
            assert Fields(deep).json_object("a") == deep["a"]
        else:
            with pytest.raises(InvalidRequest, match="nested deeper than 100 levels"):
                Fields(deep).json_object("a")


@pytest.mark.parametrize(
    ("value", "levels"),
    [("text", 0), (None, 0), ([], 1), ({"a": 1}, 1), ({"a": [{"b": [1]}, 2]}, 4), ([{}, "x"], 2)],
)
def test_the_size_of_a_value_is_known_as_deep_as_it_is_nested(value: Json, levels: int) -> None:
    assert size_within(value, levels) == len(orjson.dumps(value))
    if levels:
        assert size_within(value, levels - 1) is None


def test_a_body_of_very_many_lists_and_objects_is_refused_unread() -> None:
    many = b",".join([b"[]"] * 1000)
    assert len(parse_json(b'{"a":[%s]}' % many)["a"]) == 1000
    with pytest.raises(InvalidRequest, match="lists and objects"):
        parse_json(b'{"a":[%s]}' % b",".join([many] * (MAX_BRACKETS // 1000)))
