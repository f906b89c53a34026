import pytest
from chat_strategies import cuts
from hypothesis import given
from hypothesis import strategies as st

from helexa.errors import UpstreamMalformed
from helexa.wire import sse
from helexa.wire.sse import Comment, Frame, Parser

lines = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)


def parse(data: bytes) -> list[Frame | Comment]:
    return Parser().feed(data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"data: a\n\n", [Frame("a")]),
        (b"data:a\r\n\r\n", [Frame("a")]),
        (b"data: a\r\r", [Frame("a")]),
        (b"data: a\ndata: b\n\n", [Frame("a\nb")]),
        (b"data\n\n", [Frame("")]),
        (b"data:  two spaces\n\n", [Frame(" two spaces")]),
        (b"event: ping\ndata: {}\n\n", [Frame("{}", "ping")]),
        (b"event: ping\n\ndata: {}\n\n", [Frame("{}")]),
        (b": queued 3/8\n\n", [Comment("queued 3/8")]),
        (b"data: a\n: in between\ndata: b\n\n", [Comment("in between"), Frame("a\nb")]),
        (b"id: 7\nretry: 10\nfoo: bar\ndata: a\n\n", [Frame("a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Frame("a")]),
        (b"data: \xff\n\n", [Frame("\ufffd")]),
        (b"\n\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
    ],
)
def test_a_stream_is_read_as_the_standard_says(data: bytes, found: list[Frame | Comment]) -> None:
    assert parse(data) == found


@given(
    st.data(),
    st.lists(lines | st.just("data: x"), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_how_the_bytes_are_cut_makes_no_difference(
    data: st.DataObject, written: list[str], end: str
) -> None:
    stream = (end.join(["data: first", *written, "", ""])).encode()
    parser = Parser()
    found = [event for piece in data.draw(cuts(stream)) for event in parser.feed(piece)]
    assert found == parse(stream)


@given(lines, st.none() | st.text("abc_.", min_size=1))
def test_what_is_written_is_read(text: str, event: str | None) -> None:
    assert parse(sse.frame(text.encode(), event)) == [Frame(text, event or "message")]


@given(lines)
def test_a_comment_is_read_as_it_was_written(text: str) -> None:
    assert parse(sse.comment(text)) == [Comment(text)]


@pytest.mark.parametrize(
    "data", [b"x" * 101, b"data: " + b"x" * 200 + b"\n", b"data: 0123456789\n" * 11]
)
def test_an_event_without_end_is_refused(data: bytes) -> None:
    parser = Parser(max_bytes=100)
    with pytest.raises(UpstreamMalformed):
        list(map(parser.feed, (data[i : i + 1] for i in range(len(data)))))
