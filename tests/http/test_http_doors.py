"""The decisions at the door, as tables: no server, no socket."""

import pytest

from helexa.accounts.keys import ANONYMOUS_KEY, Key, plain_hash
from helexa.conversation import ANONYMOUS, Principal
from helexa.errors import HelexaError
from helexa.http.doors import Admitted, Door, Head, Preflight, cors_headers, decide, key_told

MIB = 2**20
OPEN = Door()
GUARDED = Door(token="s3cret", public_paths=("/health",), believe_principals=True)
SHOWN = (b"authorization", b"Bearer s3cret")
JSON = (b"content-type", b"application/json")
LENGTH = (b"content-length", b"2")


def head(
    *headers: tuple[bytes, bytes],
    method: str = "GET",
    path: str = "/v1/models",
    host: bytes = b"localhost:31313",
    peer: str = "127.0.0.1",
    server: str = "127.0.0.1",
) -> Head:
    return Head(method, path, [(b"host", host), *headers], peer, server)


def outcome(request: Head, door: Door = OPEN, limit: int = 32 * MIB) -> int | str:
    """Zero if it comes in, else the code of the refusal."""
    try:
        decide(request, door, limit)
    except HelexaError as error:
        return error.code or error.status
    return 0


# -- names -----------------------------------------------------------------------------------------

LAN = Door(names=frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "nas", "nas.local"}))
NAMED = Door(allowed_hosts=("llm.example.org", "Nas.Lan:8080"))


@pytest.mark.parametrize(
    ("host", "door", "comes_in"),
    [
        (b"localhost", OPEN, True),
        (b"localhost:1", OPEN, True),
        (b"LOCALHOST.:31313", OPEN, True),
        (b"127.0.0.1:31313", OPEN, True),
        (b"[::1]:31313", OPEN, True),
        (b"[0:0:0:0:0:0:0:1]", OPEN, True),
        (b"evil.example", OPEN, False),
        (b"evil.example:31313", OPEN, False),
        (b"localhost.evil.example", OPEN, False),
        (b"evil.example#localhost", OPEN, False),
        (b"localhost@evil.example", OPEN, False),
        (b"localhost:x", OPEN, False),
        (b"localhost, evil.example", OPEN, False),
        (b"192.168.1.20", OPEN, False),
        (b"", OPEN, False),
        (b"\xff\xfe", OPEN, False),
        (b"nas:31313", LAN, True),
        (b"nas.local", LAN, True),
        (b"nas.evil.example", LAN, False),
        (b"llm.example.org", NAMED, True),
        (b"llm.example.org:443", NAMED, True),
        (b"nas.lan", NAMED, True),
        (b"other.example.org", NAMED, False),
        (b"localhost", NAMED, True),
        (b"evil.example", Door(allowed_hosts=("*",)), True),
    ],
)
def test_only_the_names_of_the_listener_are_answered(
    host: bytes, door: Door, comes_in: bool
) -> None:
    assert outcome(head(host=host), door) == (0 if comes_in else "forbidden")


def test_the_address_of_the_connection_is_a_name_of_the_listener() -> None:
    assert outcome(head(host=b"192.168.1.20:31313", server="192.168.1.20")) == 0
    assert outcome(head(host=b"192.168.1.21:31313", server="192.168.1.20")) == "forbidden"


def test_a_request_without_host_is_refused() -> None:
    assert outcome(Head("GET", "/", [], "127.0.0.1", "127.0.0.1")) == "forbidden"


# -- origins ---------------------------------------------------------------------------------------

PAGES = Door(allowed_origins=("https://chat.example",), cors_origins=("http://localhost:3000/",))


@pytest.mark.parametrize(
    ("origin", "host", "door", "comes_in"),
    [
        (b"http://localhost:31313", b"localhost:31313", OPEN, True),
        (b"HTTP://LocalHost:31313", b"localhost:31313", OPEN, True),
        (b"http://localhost", b"localhost", OPEN, True),
        (b"http://localhost", b"localhost:80", OPEN, True),
        (b"https://localhost", b"localhost", OPEN, True),
        (b"http://[::1]:31313", b"[::1]:31313", OPEN, True),
        (b"http://localhost:3000", b"localhost:31313", OPEN, False),
        (b"http://localhost", b"localhost:31313", OPEN, False),
        (b"http://127.0.0.1:31313", b"localhost:31313", OPEN, False),
        (b"https://evil.example", b"localhost:31313", OPEN, False),
        (b"null", b"localhost:31313", OPEN, False),
        (b"", b"localhost:31313", OPEN, False),
        (b"file://", b"localhost:31313", OPEN, False),
        (b"\xff", b"localhost:31313", OPEN, False),
        (b"https://chat.example", b"localhost:31313", PAGES, True),
        (b"https://CHAT.example", b"localhost:31313", PAGES, True),
        (b"http://localhost:3000", b"localhost:31313", PAGES, True),
        (b"https://chat.example.evil", b"localhost:31313", PAGES, False),
        (b"null", b"localhost:31313", Door(allowed_origins=("null",)), True),
        (b"https://any.example", b"localhost:31313", Door(allowed_origins=("*",)), True),
        (b"https://any.example", b"localhost:31313", Door(cors_origins=("*",)), True),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_only_our_own_pages_and_allowed_ones_come_in(
    origin: bytes, host: bytes, door: Door, comes_in: bool, method: str
) -> None:
    request = head((b"origin", origin), host=host, method=method)
    assert outcome(request, door) == (0 if comes_in else "forbidden")


def test_a_name_is_checked_even_if_the_origin_agrees_with_it() -> None:
    rebound = head((b"origin", b"http://evil.example"), host=b"evil.example")
    assert outcome(rebound) == "forbidden"


# -- CORS ------------------------------------------------------------------------------------------


def preflight(door: Door, origin: bytes = b"http://localhost:3000") -> object:
    request = head(
        (b"origin", origin),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization,content-type"),
        method="OPTIONS",
    )
    return decide(request, door, MIB)


def test_a_preflight_is_answered_before_authentication() -> None:
    verdict = preflight(Door(token="s3cret", cors_origins=("http://localhost:3000",)))
    assert isinstance(verdict, Preflight)
    answer = dict(verdict.headers)
    assert answer[b"access-control-allow-headers"] == b"authorization,content-type"
    assert b"POST" in answer[b"access-control-allow-methods"]


@pytest.mark.parametrize(
    "wanted",
    [
        b"x-api-key, anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access",
        b"authorization,openai-organization,openai-project,openai-beta",
        b"x-stainless-lang,x-stainless-retry-count,x-include-thinking",
    ],
)
def test_a_page_may_send_what_the_clients_of_every_dialect_send(wanted: bytes) -> None:
    asked = head(
        (b"origin", b"http://localhost:3000"),
        (b"access-control-request-method", b"DELETE"),
        (b"access-control-request-headers", wanted),
        method="OPTIONS",
    )
    verdict = decide(asked, Door(cors_origins=("*",)), MIB)
    assert isinstance(verdict, Preflight)
    answer = dict(verdict.headers)
    assert answer[b"access-control-allow-headers"] == wanted
    assert b"DELETE" in answer[b"access-control-allow-methods"]


def test_a_preflight_from_a_page_that_may_not_read_is_an_ordinary_request() -> None:
    assert isinstance(preflight(Door(allowed_origins=("http://localhost:3000",))), Admitted)


@pytest.mark.parametrize(
    ("door", "origin", "allowed", "varies"),
    [
        (Door(), b"http://x", None, False),
        (Door(cors_origins=("http://x",)), b"http://x", b"http://x", True),
        (Door(cors_origins=("http://x",)), b"http://y", None, True),
        (Door(cors_origins=("http://x",)), None, None, True),
        (Door(cors_origins=("*",)), b"http://y", b"*", True),
    ],
)
def test_responses_let_the_pages_of_cors_origins_read_them(
    door: Door, origin: bytes | None, allowed: bytes | None, varies: bool
) -> None:
    headers = dict(cors_headers(head(*([(b"origin", origin)] if origin else [])), door))
    assert headers.get(b"access-control-allow-origin") == allowed
    assert (b"access-control-expose-headers" in headers) == (allowed is not None)
    assert headers.get(b"vary") == (b"Origin" if varies else None)


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "method", "path", "expected"),
    [
        (b"Bearer s3cret", "GET", "/models", 0),
        (b"bearer  s3cret", "GET", "/models", 0),
        (b"Bearer S3cret", "GET", "/models", "invalid_api_key"),
        (b"Bearer s3cret2", "GET", "/models", "invalid_api_key"),
        (b"Bearer", "GET", "/models", "invalid_api_key"),
        (b"Bearer \xff", "GET", "/models", "invalid_api_key"),
        (b"Basic s3cret", "GET", "/models", "invalid_api_key"),
        (b"s3cret", "GET", "/models", "invalid_api_key"),
        (None, "GET", "/models", "invalid_api_key"),
        (None, "GET", "/health", 0),
        (None, "HEAD", "/health", 0),
        (None, "POST", "/health", "invalid_api_key"),
        (None, "GET", "/health/", "invalid_api_key"),
        (None, "GET", "/healthy", "invalid_api_key"),
        (b"Bearer wrong", "GET", "/health", "invalid_api_key"),
        (None, "OPTIONS", "/models", "invalid_api_key"),
    ],
)
def test_a_token_guards_everything_but_a_bare_health(
    authorization: bytes | None, method: str, path: str, expected: int | str
) -> None:
    headers = [] if authorization is None else [(b"authorization", authorization)]
    assert outcome(head(*headers, method=method, path=path), GUARDED) == expected


BEARER = b"authorization"
API_KEY = b"x-api-key"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(API_KEY, b"s3cret")], 0),
        ([(API_KEY, b" s3cret ")], 0),
        ([(API_KEY, b"wrong")], "invalid_api_key"),
        ([(API_KEY, b"")], "invalid_api_key"),
        ([(API_KEY, b"Bearer s3cret")], "invalid_api_key"),
        ([SHOWN, (API_KEY, b"of another server")], 0),
        ([(BEARER, b"Bearer wrong"), (API_KEY, b"s3cret")], "invalid_api_key"),
        ([(BEARER, b"Basic of-a-proxy"), (API_KEY, b"s3cret")], 0),
        ([(API_KEY, b"s3cret"), (API_KEY, b"s3cret")], 400),
    ],
)
def test_a_token_may_come_as_an_api_key_but_a_bearer_counts_first(
    headers: list[tuple[bytes, bytes]], expected: int | str
) -> None:
    assert outcome(head(*headers, method="POST"), GUARDED) == expected


def test_a_wrong_api_key_is_refused_even_where_none_is_needed() -> None:
    wrong = head((API_KEY, b"wrong"), path="/health")
    assert outcome(wrong, GUARDED) == "invalid_api_key"


def test_a_stranger_learns_nothing_about_bodies() -> None:
    request = head((b"content-length", b"999999999"), method="POST")
    assert outcome(request, GUARDED) == "invalid_api_key"


def test_who_showed_the_token_is_authenticated() -> None:
    assert decide(head(SHOWN), GUARDED, MIB) == Admitted(ANONYMOUS_KEY, True)
    assert decide(head(path="/health"), GUARDED, MIB) == Admitted(ANONYMOUS_KEY, False)
    assert decide(head(), OPEN, MIB) == Admitted(ANONYMOUS_KEY, False)


def test_a_listener_may_know_the_hash_of_its_token_alone() -> None:
    hash = plain_hash(b"s3cret")
    door = Door(token_hash=hash, public_paths=("/health",))
    assert decide(head(SHOWN), door, MIB) == Admitted(ANONYMOUS_KEY, True)
    for wrong in (b"wrong", hash.encode(), b""):
        assert outcome(head((b"authorization", b"Bearer " + wrong)), door) == "invalid_api_key"
    assert hash not in repr(door)


def test_a_token_is_never_shown() -> None:
    assert "s3cret" not in repr(GUARDED)
    assert "s3cret" not in repr(head(SHOWN))


# -- principals ------------------------------------------------------------------------------------

NAMED_HEADERS = ((b"x-helexa-account-id", b"acme"), (b"x-helexa-key-id", b"k1"))
ACME = Principal("acme", "k1")


@pytest.mark.parametrize(
    ("peer", "token_presented", "trusted", "expected"),
    [
        ("10.0.0.7", True, (), ACME),
        ("127.0.0.1", False, (), ANONYMOUS),
        ("10.0.0.7", False, ("10.0.0.7",), ANONYMOUS),
        ("127.0.0.1", None, (), ACME),
        ("127.8.8.8", None, (), ACME),
        ("::1", None, (), ACME),
        ("::ffff:127.0.0.1", None, (), ACME),
        ("10.0.0.7", None, (), ANONYMOUS),
        ("10.0.0.7", None, ("10.0.0.7",), ACME),
        ("::ffff:10.0.0.7", None, ("10.0.0.7",), ACME),
        ("10.0.0.7", None, ("10.0.0.0/24",), ACME),
        ("10.0.1.7", None, ("10.0.0.0/24",), ANONYMOUS),
        ("fd00::7", None, ("fd00::/8",), ACME),
        ("", None, (), ANONYMOUS),
    ],
)
def test_account_and_key_are_believed_only_from_whom_we_trust(
    peer: str, token_presented: bool | None, trusted: tuple[str, ...], expected: Principal
) -> None:
    told = key_told(NAMED_HEADERS, peer, token_presented, trusted)
    assert told.principal == expected


def test_a_key_is_called_like_its_account_unless_it_has_a_name() -> None:
    assert key_told(NAMED_HEADERS[:1], "::1", None, ()).principal == Principal("acme", "acme")
    assert key_told(NAMED_HEADERS[1:], "::1", None, ()).principal == ANONYMOUS


@pytest.mark.parametrize("account", [b"", b"a b", b"a\x7f", b"\xff", b"x" * 129])
def test_an_account_that_could_spoil_a_label_is_refused(account: bytes) -> None:
    with pytest.raises(HelexaError, match="printable"):
        key_told([(b"x-helexa-account-id", account)], "::1", None, ())


def test_a_listener_that_believes_nobody_sees_everyone_as_anonymous() -> None:
    assert decide(head(*NAMED_HEADERS), OPEN, MIB) == Admitted(ANONYMOUS_KEY, False)
    believing = Door(believe_principals=True)
    assert decide(head(*NAMED_HEADERS), believing, MIB) == Admitted(Key(ACME), False)


# -- shape and body --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"content-type",
        b"x-helexa-account-id",
        b"x-helexa-explain",
    ],
)
def test_a_header_that_decides_something_comes_once(name: bytes) -> None:
    assert outcome(head((name, b"1"), (name, b"1"))) == 400


def test_a_length_and_chunks_exclude_each_other() -> None:
    assert outcome(head(LENGTH, (b"transfer-encoding", b"chunked"), JSON, method="POST")) == 400


@pytest.mark.parametrize("path", ["", "*", "models", "http://localhost/models", "localhost:22"])
def test_a_target_is_a_path(path: str) -> None:
    assert outcome(head(path=path)) == 400


CHUNKED = (b"transfer-encoding", b"chunked")
REFUSED = "unsupported_media_type"


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("POST", [JSON, LENGTH], 0),
        ("POST", [(b"content-type", b"Application/JSON ; charset=utf-8"), LENGTH], 0),
        ("POST", [(b"content-type", b"text/plain"), LENGTH], REFUSED),
        ("POST", [(b"content-type", b"application/x-www-form-urlencoded"), LENGTH], REFUSED),
        (
            "POST",
            [(b"content-type", b"multipart/form-data; boundary=application/json"), LENGTH],
            REFUSED,
        ),
        ("POST", [(b"content-type", b"application/json-seq"), LENGTH], REFUSED),
        ("POST", [LENGTH], REFUSED),
        ("POST", [CHUNKED], REFUSED),
        ("POST", [JSON, CHUNKED], 0),
        ("POST", [], 0),
        ("POST", [(b"content-length", b"0")], 0),
        ("POST", [(b"content-type", b"text/plain")], REFUSED),
        ("PUT", [(b"content-type", b"text/plain"), LENGTH], REFUSED),
        ("DELETE", [(b"content-type", b"text/plain"), LENGTH], REFUSED),
        ("GET", [], 0),
        ("GET", [JSON], 0),
        ("GET", [(b"content-type", b"text/plain")], 0),
        ("POST", [JSON, LENGTH, (b"content-encoding", b"gzip")], REFUSED),
        ("POST", [JSON, LENGTH, (b"content-encoding", b"identity")], REFUSED),
    ],
)
def test_bodies_are_plain_json(
    method: str, headers: list[tuple[bytes, bytes]], expected: int | str
) -> None:
    assert outcome(head(*headers, method=method)) == expected


def test_a_body_may_have_just_the_limit() -> None:
    def bringing(num_bytes: int) -> Head:
        return head(JSON, (b"content-length", str(num_bytes).encode()), method="POST")

    assert outcome(bringing(32 * MIB)) == 0
    assert outcome(bringing(32 * MIB + 1)) == "body_too_large"
    assert outcome(bringing(10**20)) == "body_too_large"


def test_no_client_takes_a_large_body_for_a_long_prompt() -> None:
    """Some compact the conversation and try again, for ever, on a word they know from elsewhere."""
    with pytest.raises(HelexaError) as caught:
        decide(head(JSON, (b"content-length", b"999999999"), method="POST"), OPEN, 32 * MIB)
    told = caught.value
    assert (told.status, told.type) == (400, "invalid_request_error")
    assert "32 MiB" in told.message
    words = (
        "context, token, too large, too long, too many, limit of, limit, maximum, exceed, rate, 429"
    )
    assert not [word for word in words.split(", ") if word in told.message.lower()]
