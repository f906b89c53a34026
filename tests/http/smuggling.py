"""Requests that two programs could read in two ways, each with one hidden behind it.

`HIDDEN` is what an attacker would have the second program take for a request of its own.
"""

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
BYE = b"GET /bye HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = b"POST /seen HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"%d" % len(HIDDEN)
LAST = b"0\r\n\r\n"


def both(*lines: bytes) -> bytes:
    """With a length that hides the request, and chunks that lay it open, or the other way round."""
    return POST + b"\r\n".join([*lines, b"", b""]) + LAST + HIDDEN


def with_length(*lines: bytes, body: bytes = HIDDEN) -> bytes:
    return POST + b"\r\n".join([*lines, b"", b""]) + body


# Whether refused or read as a body: nobody may take what is hidden for a request.
AMBIGUOUS = {
    "a length and chunks": both(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunks and a length": both(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "chunks, spelled in capitals": both(b"Content-Length: 5", b"TRANSFER-ENCODING: CHUNKED"),
    "identity and a length": both(b"Content-Length: 5", b"Transfer-Encoding: identity"),
    "an encoding before chunks": both(b"Transfer-Encoding: gzip, chunked"),
    "an encoding after chunks": both(b"Transfer-Encoding: chunked, identity"),
    "chunks twice": both(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunks and something else": both(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"),
    "chunks in quotes": both(b'Transfer-Encoding: "chunked"'),
    "chunks with a parameter": both(b"Transfer-Encoding: chunked;a=b"),
    "chunks with a word before": both(b"Content-Length: 5", b"Transfer-Encoding: xchunked"),
    "chunks behind a vertical tab": both(b"Content-Length: 5", b"Transfer-Encoding: \x0bchunked"),
    "chunks and a form feed": both(b"Content-Length: 5", b"Transfer-Encoding: chunked\x0c"),
    "chunks and a zero byte": both(b"Content-Length: 5", b"Transfer-Encoding: chunked\x00"),
    "a space before the colon": both(b"Content-Length: 5", b"Transfer-Encoding : chunked"),
    "a tab before the colon": both(b"Content-Length: 5", b"Transfer-Encoding\t: chunked"),
    "a space before the name": both(b"Content-Length: 5", b" Transfer-Encoding: chunked"),
    "a folded value": both(b"Content-Length: 5", b"Transfer-Encoding:\r\n chunked"),
    "a header in a header": both(b"Content-Length: 5", b"X: y\rTransfer-Encoding: chunked"),
    "an underscore for a dash": with_length(b"Content_Length: " + LENGTH, b"Content-Length: 0"),
    "two lengths": with_length(b"Content-Length: 0", b"Content-Length: " + LENGTH),
    "the same length twice": with_length(b"Content-Length: 0", b"Content-Length: 0"),
    "two lengths in one": with_length(b"Content-Length: 0, " + LENGTH),
    "the same length twice in one": with_length(b"Content-Length: 0, 0"),
    "a length with a sign": with_length(b"Content-Length: +0"),
    "a length below zero": with_length(b"Content-Length: -0"),
    "a length in hexadecimal": with_length(b"Content-Length: 0x0"),
    "a length with a point": with_length(b"Content-Length: 0.0"),
    "a length with an underscore": with_length(b"Content-Length: 0_0"),
    "a length in other digits": with_length("Content-Length: ٠".encode()),
    "an empty length": with_length(b"Content-Length:"),
    "a length of two words": with_length(b"Content-Length: 0 0"),
    "a chunk size in hexadecimal": CHUNKED + b"0x0\r\n\r\n" + HIDDEN,
    "a chunk size with a sign": CHUNKED + b"+0\r\n\r\n" + HIDDEN,
    "a chunk size below zero": CHUNKED + b"-0\r\n\r\n" + HIDDEN,
    "a chunk size with an underscore": CHUNKED + b"0_0\r\n\r\n" + HIDDEN,
    "a chunk size without digits": CHUNKED + b"\r\n\r\n" + HIDDEN,
    "a chunk that ends elsewhere": CHUNKED + b"2\r\n{}" + HIDDEN,
    "a second request line": b"POST /seen HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "a target with a space": b"POST /seen /x HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "a line end in the target": b"GET /seen%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % b"\r" + HIDDEN,
    "a version that is none": b"GET /seen HTTP/1.10\r\nHost: localhost\r\n\r\n" + HIDDEN,
}
# Who asks must not be a matter of which header counts.
TWICE = {
    "authorization": (b"Authorization: Bearer a", b"authorization: Bearer b"),
    "the same authorization": (b"Authorization: Bearer a", b"Authorization: Bearer a"),
    "x-api-key": (b"X-Api-Key: a", b"x-api-key: b"),
    "account": (b"X-Helexa-Account-Id: a", b"x-helexa-account-id: b"),
    "any of ours": (b"X-Helexa-Anything: a", b"X-Helexa-Anything: a"),
    "host": (b"Host: localhost",),
}
# Read in one way only, so that what follows is a request of its own, or none.
PLAIN = {
    "a body that looks like a request": (
        with_length(b"Content-Length: " + LENGTH, body=HIDDEN),
        False,
    ),
    "chunks that look like a request": (
        CHUNKED + b"%x\r\n%s\r\n" % (len(HIDDEN), HIDDEN) + LAST,
        False,
    ),
    "chunks, spelled in capitals": (
        POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\n{}\r\n" + LAST + HIDDEN,
        True,
    ),
    "a chunk with an extension": (CHUNKED + b"2;a=b\r\n{}\r\n" + LAST + HIDDEN, True),
    "a request behind another": (with_length(b"Content-Length: 2", body=b"{}" + HIDDEN), True),
}
