"""Forms of several parts: read, one field replaced, written anew."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.errors import InvalidRequest
from helexa.wire.form import Form, Part, is_form, read_form

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
parts = st.builds(
    Part,
    names,
    st.binary(max_size=300),
    st.none() | names,
    st.sampled_from(["", "audio/wav", "text/plain; charset=utf-8"]),
)


@given(st.lists(parts, max_size=5))
def test_what_is_written_is_read_again(found: list[Part]) -> None:
    form = Form(tuple(found))
    assert read_form(*form.write()) == form


def test_a_field_is_replaced_and_nothing_else() -> None:
    form = Form((Part("model", b"alias"), Part("file", b"model", "model"), Part("n", b"1")))
    changed = form.with_field("model", "the-model")
    assert changed.field("model") == "the-model"
    assert changed.parts[1:] == form.parts[1:]
    assert form.field("other") == ""
    assert form.num_words_bytes == 6


def test_a_field_that_comes_twice_is_refused() -> None:
    form = Form((Part("model", b"a"), Part("model", b"b")))
    with pytest.raises(InvalidRequest) as refusal:
        form.field("model")
    assert refusal.value.param == "model"


def test_a_name_cannot_begin_a_header_or_another_part() -> None:
    form = Form((Part('a"; x="', b"", 'f"\r\nX: y\r\n\r\n--b', "audio/wav\r\nX: y"),))
    _, body = form.write()
    head = body.partition(b"\r\n\r\n")[0]
    assert head.count(b"\r\n") == 2
    assert b"\r\nX: y" not in head


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"nothing"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n'),
        ("multipart/form-data; boundary=x", b"--x\r\nX: y\r\n\r\na\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 70 + b"--x--\r\n",
        ),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    assert is_form(content_type)
    with pytest.raises(InvalidRequest):
        read_form(content_type, body)


@given(st.binary(max_size=200))
def test_no_bytes_bring_it_down(body: bytes) -> None:
    for data in (body, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + body):
        with suppress(InvalidRequest):
            read_form("multipart/form-data; boundary=x", data)
