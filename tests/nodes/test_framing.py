"""The bytes of answers: however they are cut, they are read alike, and what is doubtful is refused."""

from collections.abc import Sequence
from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.nodes.framing import MAX_HEAD_BYTES, Answer, Garbled

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(*pieces: bytes) -> tuple[Answer, bytes]:
    """What `pieces` hold, as far as they go."""
    answer, body = Answer(), b""
    for piece in pieces:
        answer.feed(piece)
        if answer.head is not None:
            body += answer.take()
    return answer, body


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(bounds) if a < b]


def chunked(parts: Sequence[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = [b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts if part]
    return CHUNKED + b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


def as_h11_reads(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    head, body = None, b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        assert not isinstance(event, type)
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
    assert head is not None
    return head.status_code, list(head.headers), body


# -- laws ------------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.sampled_from([b"", b";a", b';a="b c"', b" ;x=1"]),
    st.sampled_from([b"", b"x: y\r\n", b"a: b\r\nc: d\r\n"]),
)
def test_chunks_are_read_alike_wherever_the_network_cuts_them(
    parts: list[bytes], places: list[int], extension: bytes, trailer: bytes
) -> None:
    answer, body = read(*cut(chunked(parts, extension, trailer), places))
    assert (body, answer.ended, answer.keeps) == (b"".join(parts), True, True)


@given(st.binary(max_size=60), st.lists(st.integers(0, 10_000), max_size=8), st.binary(max_size=3))
def test_a_length_is_kept_to_and_what_is_behind_it_ends_the_connection(
    body: bytes, places: list[int], behind: bytes
) -> None:
    data = OK + b"content-length: %d\r\n\r\n" % len(body) + body + behind
    answer, found = read(data)
    assert (found, answer.ended, answer.keeps) == (body, True, not behind)
    answer, found = read(*cut(data[: len(data) - len(behind)], places))
    assert (found, answer.ended, answer.keeps) == (body, True, True)


@given(st.binary(max_size=80), st.lists(st.integers(0, 100), max_size=5))
def test_what_is_no_http_is_garbled_or_unfinished_and_nothing_else(
    data: bytes, places: list[int]
) -> None:
    for start in (b"", CHUNKED, OK + b"content-length: 7\r\n\r\n"):
        try:
            answer, _ = read(*cut(start + data, places)) if start + data else read()
        except Garbled:
            continue
        assert not answer.keeps or answer.head is not None


@given(
    st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    st.lists(
        st.tuples(
            st.from_regex(r"x-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}", fullmatch=True),
            st.from_regex(r"([!-~][!-~ \t]{0,10}[!-~])?", fullmatch=True),
        ),
        max_size=5,
    ),
    st.lists(st.binary(min_size=1, max_size=20), max_size=3),
)
def test_heads_and_bodies_are_those_that_h11_reads(
    status: int, headers: list[tuple[str, str]], parts: list[bytes]
) -> None:
    lines = "".join(f"{name}:  {value}\t\r\n" for name, value in headers).encode()
    data = b"HTTP/1.1 %d So\r\n" % status + lines + chunked(parts).removeprefix(OK)
    answer, body = read(data)
    assert answer.head is not None
    ours = [(name.encode(), value.encode()) for name, value in answer.head.headers]
    assert (answer.head.status, ours, body) == as_h11_reads(data)


# -- heads -----------------------------------------------------------------------------------------


def test_informational_heads_are_skipped() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    answer, body = read(b"HTTP/1.1 100 Continue\r\n\r\n" + early, chunked([b"x"]))
    assert answer.head is not None
    assert (answer.head.status, body) == (200, b"x")


def test_another_protocol_is_no_informational_head() -> None:
    answer, _ = read(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")
    assert answer.head is not None
    assert answer.head.status == 101


def test_heads_that_never_count_end_somewhere() -> None:
    one = b"HTTP/1.1 100 Continue\r\nx: " + b"y" * 1000 + b"\r\n\r\n"
    with pytest.raises(Garbled, match="too long"):
        read(*[one] * (MAX_HEAD_BYTES // len(one) + 1))


def test_a_header_without_end_is_too_long() -> None:
    with pytest.raises(Garbled, match="too long"):
        read(OK + b"x: ", *[b"y" * 1000] * (MAX_HEAD_BYTES // 1000 + 1))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        b"HTTP/1.9 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_10.0",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b": no name\r\n\r\n",
        OK + b"a name : x\r\n\r\n",
        OK + b"name : x\r\n\r\n",
        OK + b"a: b\r\n folded: c\r\n\r\n",
        OK + b"a: b\nc: d\r\n\r\n",
        OK + b"a: b\rc: d\r\n\r\n",
        OK + b"a: \0\r\n\r\n",
    ],
)
def test_a_head_that_is_not_quite_one_is_refused(head: bytes) -> None:
    with pytest.raises(Garbled):
        read(head)


# -- framing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 1\r\ncontent-length: 2",
        b"content-length: 1, 2",
        b"content-length: 1\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: gzip",
        b"transfer-encoding: xchunked",
        b"content-length: -1",
        b"content-length: +1",
        b"content-length: 1_0",
        b"content-length: 0x1",
        b"content-length:",
        b"content-length: 9999999999999999",
        "content-length: \xb2".encode("latin-1"),
    ],
)
def test_a_body_that_may_end_in_two_places_is_refused(framing: bytes) -> None:
    with pytest.raises(Garbled):
        read(OK + framing + b"\r\n\r\n")


def test_a_length_that_is_said_twice_alike_is_one() -> None:
    answer, body = read(OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nhi")
    assert (body, answer.ended) == (b"hi", True)


def test_http_1_0_knows_no_chunks() -> None:
    with pytest.raises(Garbled):
        read(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    "chunk",
    [
        b"\r\n",
        b"g\r\n",
        b"0x5\r\n",
        b"+5\r\n",
        b" 5\r\n",
        b"1_0\r\n",
        b"-1\r\n",
        b"1" * 16 + b"\r\n",
        b"1" * 2000,
        b"1;" + b"x" * 2000,
        b"3\r\nabcd\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
    ],
)
def test_a_chunk_that_is_not_quite_one_is_refused(chunk: bytes) -> None:
    with pytest.raises(Garbled):
        read(CHUNKED + chunk)


def test_trailers_without_end_are_refused() -> None:
    with pytest.raises(Garbled, match="no end"):
        read(CHUNKED + b"0\r\n", *[b"x: " + b"y" * 1000 + b"\r\n"] * 200)


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_have_no_body_whatever_they_say(status: int) -> None:
    answer, body = read(b"HTTP/1.1 %d X\r\ncontent-length: 5\r\n\r\n" % status)
    assert (body, answer.ended, answer.keeps) == (b"", True, True)


def test_without_framing_the_body_ends_with_the_connection() -> None:
    answer, body = read(OK + b"\r\n", b"one", b"two", b"")
    assert (body, answer.ended, answer.keeps) == (b"onetwo", True, False)


@pytest.mark.parametrize("begin", [b"", OK, CHUNKED, CHUNKED + b"5\r\nhel", CHUNKED + b"0\r\n"])
def test_an_answer_that_breaks_off_is_garbled(begin: bytes) -> None:
    with pytest.raises(Garbled, match="closed the connection"):
        read(begin, b"") if begin else read(b"")


@pytest.mark.parametrize(
    "head",
    [
        OK + b"connection: close\r\n",
        OK + b"Connection: Keep-Alive, Close\r\n",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n",
    ],
)
def test_a_connection_that_is_not_kept_is_not_used_again(head: bytes) -> None:
    answer, _ = read(head + b"content-length: 0\r\n\r\n")
    assert (answer.ended, answer.keeps) == (True, False)
