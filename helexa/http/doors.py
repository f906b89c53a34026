"""Who may come in at a listener, decided from the head of a request alone: pure, no I/O."""

import hmac
import re
from collections.abc import Sequence

from attrs import field, frozen

from helexa.accounts.keys import ANONYMOUS_KEY, Key, plain_hash
from helexa.conversation import ANONYMOUS, Principal
from helexa.errors import BodyTooLarge, Forbidden, InvalidRequest, Unauthorized, UnsupportedMedia
from helexa.fleet.share import PRIORITY, WEIGHT, share_of
from helexa.http.address import (
    LOOPBACK_NAMES,
    is_among,
    is_loopback,
    is_same_origin,
    split_authority,
)

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case, as ASGI gives them

MIB = 2**20
PREFLIGHT_SECONDS = 600
FORM_PATHS = ("/v1/audio/", "/v1/images/")
ACCOUNT, KEY = b"x-helexa-account-id", b"x-helexa-key-id"
TOLD_BY_GATEWAYS = frozenset({ACCOUNT, KEY, WEIGHT, PRIORITY})
SINGLE = frozenset(
    {b"content-length", b"transfer-encoding", b"authorization", b"x-api-key", b"content-type"}
)
PLAIN_ID = re.compile(rb"[\x21-\x7e]{1,128}")
USUAL = b"authorization, content-type, x-api-key, anthropic-version, anthropic-beta"
HEADER_NAMES = re.compile(rb"[-_a-zA-Z0-9, ]*")
EXPOSED = ", ".join(
    [
        "retry-after",
        "x-should-retry",
        "x-request-id",
        "request-id",
        "x-helexa-node",
        "x-helexa-decision",
        *(f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")),
        *(f"anthropic-ratelimit-tokens-{what}" for what in ("limit", "remaining", "reset")),
    ]
).encode()


@frozen
class Door:
    """The rules of one listener.

    `names` is what the listener calls itself; `serve` fills it in.  Of its token it may know the
    `token_hash` alone, as `plain_hash` makes it.  `public_paths` are open to a bare
    GET without the token, and with keys to any GET.  `takes_keys` is for a gateway: who shows none
    is anonymous, unless `require_key` is set.  `believe_principals` is for a node: account and key
    come in headers from a gateway, which is trusted for its token or, if there is none, for its
    address.
    """

    names: frozenset[str] = LOOPBACK_NAMES
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    token_hash: str = field(default="", repr=False)
    public_paths: tuple[str, ...] = ()
    takes_keys: bool = False
    require_key: bool = False
    believe_principals: bool = False
    trusted_peers: tuple[str, ...] = ()


@frozen
class Head:
    """What is known of a request before its body: `peer` and `server` are both ends' addresses."""

    method: str
    path: str
    headers: Headers = field(repr=False)
    peer: str
    server: str

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    def text(self, name: bytes) -> str | None:
        value = self.get(name)
        return None if value is None else value.decode("latin-1")


@frozen
class Admitted:
    """Come in as the holder of `key`.  `authenticated` tells whether a key or the token was shown."""

    key: Key
    authenticated: bool

    @property
    def principal(self) -> Principal:
        return self.key.principal


@frozen
class Preflight:
    """A browser asks what a page may send; the answer is `headers` and 204."""

    headers: Headers


def decide(
    head: Head, door: Door, max_body_bytes: int, found: Key | None = None
) -> Admitted | Preflight:
    """Who comes in, and as whom; a HelexaError says who does not.

    `found` is the key that the request shows, if that is a key.  The order tells a stranger nothing:
    name and origin first, then the token, the body's kind last.
    """
    check_shape(head)
    check_host(head, door)
    check_origin(head, door)
    if is_preflight(head, door):
        return Preflight(preflight_headers(head, door))
    shown = token_shown(head, door)
    key = key_shown(head, door, found) if door.takes_keys else ANONYMOUS_KEY
    check_body(head, max_body_bytes)
    if door.believe_principals:
        key = key_told(head.headers, head.peer, shown, door.trusted_peers)
        return Admitted(key, bool(shown))
    return Admitted(key, bool(shown) or key.principal != ANONYMOUS)


# -- shape, name, origin ---------------------------------------------------------------------------


def check_shape(head: Head) -> None:
    """One reading only: what two programs could read in two ways is refused."""
    if not head.path.startswith("/"):
        raise InvalidRequest("The target of a request must be a path that begins with a slash.")
    seen = set()
    for name, _ in head.headers:
        meant = name.replace(b"_", b"-")  # as what is made for CGI reads it
        if meant in SINGLE or meant.startswith(b"x-helexa-"):
            if meant in seen or meant != name:
                raise InvalidRequest(
                    f"The header {meant.decode()} came more than once, or misspelled."
                )
            seen.add(name)
    if {b"content-length", b"transfer-encoding"} <= seen:
        raise InvalidRequest("Content-Length and Transfer-Encoding exclude each other.")


def check_host(head: Head, door: Door) -> None:
    """A page that points its own name at our address must not be taken for a friend."""
    if "*" in door.allowed_hosts:
        return
    authority = split_authority(head.text(b"host") or "")
    allowed = {split_authority(entry) for entry in door.allowed_hosts}
    names = door.names | {head.server} | {name for name, _ in filter(None, allowed)}
    if authority is None or authority[0] not in names:
        raise Forbidden(
            "The Host of this request is not a name of this server; `allowed_hosts` can add it."
        )


def check_origin(head: Head, door: Door) -> None:
    origin = head.text(b"origin")
    if origin is None or is_same_origin(origin, head.text(b"host") or ""):
        return
    if not matches(origin, door.allowed_origins + door.cors_origins):
        raise Forbidden(
            "Pages from this Origin may not use this server; `allowed_origins` or `cors_origins` can "
            "let them."
        )


def matches(origin: str, origins: Sequence[str]) -> bool:
    return "*" in origins or origin.lower() in {entry.lower().rstrip("/") for entry in origins}


# -- CORS ------------------------------------------------------------------------------------------


def is_preflight(head: Head, door: Door) -> bool:
    return (
        head.method == "OPTIONS"
        and head.get(b"access-control-request-method") is not None
        and matches(head.text(b"origin") or "", door.cors_origins)
    )


def cors_headers(head: Head, door: Door) -> Headers:
    """What every response carries so that the pages of `cors_origins` may read it."""
    if not door.cors_origins:
        return ()
    origin = head.get(b"origin")
    if origin is None or not matches(origin.decode("latin-1"), door.cors_origins):
        return ((b"vary", b"Origin"),)
    return (
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", b"*" if "*" in door.cors_origins else origin),
        (b"access-control-expose-headers", EXPOSED),
    )


def preflight_headers(head: Head, door: Door) -> Headers:
    wanted = head.get(b"access-control-request-headers") or b""
    allowed = wanted if HEADER_NAMES.fullmatch(wanted) else b""
    return (
        (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", allowed or USUAL),
        (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
    )


# -- who -------------------------------------------------------------------------------------------


def token_shown(head: Head, door: Door) -> bool | None:
    """None if the listener has no token; Unauthorized unless it was shown or is not needed here."""
    if not (door.token or door.token_hash):
        return None
    if is_bare(head) and head.method in ("GET", "HEAD") and head.path in door.public_paths:
        return False
    wanted = door.token_hash or plain_hash(door.token.encode())
    if hmac.compare_digest(plain_hash(secret_of(head)), wanted):
        return True
    raise Unauthorized(
        "This listener needs its token: Authorization: Bearer TOKEN, or x-api-key: TOKEN."
    )


def key_shown(head: Head, door: Door, found: Key | None) -> Key:
    """Whose request it is; Unauthorized for a key that is none, and for none where one is needed."""
    if head.method in ("GET", "HEAD") and head.path in door.public_paths:
        return ANONYMOUS_KEY
    if not secret_of(head):
        found = ANONYMOUS_KEY
    elif found is None:
        raise Unauthorized(
            "This key is not known here, was revoked, or has expired.  Ask whoever runs this server "
            "for another; without `require_auth` a request may also come without a key."
        )
    if door.require_key and found.principal == ANONYMOUS:
        raise Unauthorized("This server needs a key: Authorization: Bearer KEY, or x-api-key: KEY.")
    return found


def is_bare(head: Head) -> bool:
    return head.get(b"authorization") is None and head.get(b"x-api-key") is None


def secret_of(head: Head) -> bytes:
    """The key that a request shows, b"" for none; a bearer's counts before an `x-api-key`."""
    scheme, _, secret = (head.get(b"authorization") or b"").partition(b" ")
    return (secret if scheme.lower() == b"bearer" else head.get(b"x-api-key") or b"").strip()


def key_told(
    headers: Headers, peer_address: str, token_presented: bool | None, trusted_peers: Sequence[str]
) -> Key:
    """The key that a trusted gateway names, with its weight and priority; else anonymous.

    `token_presented` is None where no token is configured: then loopback and `trusted_peers` count.
    """
    if token_presented is False or (
        token_presented is None
        and not is_loopback(peer_address)
        and not is_among(peer_address, trusted_peers)
    ):
        return ANONYMOUS_KEY
    named = dict(headers)
    account = named.get(ACCOUNT)
    if account is None:
        return ANONYMOUS_KEY
    key = named.get(KEY, account)
    if not PLAIN_ID.fullmatch(account) or not PLAIN_ID.fullmatch(key):
        raise InvalidRequest("Account and key ids are 1 to 128 printable ASCII characters.")
    return Key(Principal(account.decode(), key.decode()), share=share_of(headers))


# -- what they bring -------------------------------------------------------------------------------


def check_body(head: Head, max_body_bytes: int) -> None:
    length = int(head.get(b"content-length") or 0)
    has_body = length > 0 or head.get(b"transfer-encoding") is not None
    if head.get(b"content-encoding") is not None:
        raise UnsupportedMedia("Bodies are taken as they are: send no Content-Encoding.")
    kind = head.get(b"content-type")
    brings = has_body or (kind is not None and head.method in ("POST", "PUT", "PATCH"))
    if brings and not is_taken((kind or b"").partition(b";")[0].strip().lower(), head.path):
        raise UnsupportedMedia("Bodies are JSON here: send Content-Type: application/json.")
    if length > max_body_bytes:
        raise body_too_large(max_body_bytes)


def is_taken(kind: bytes, path: str) -> bool:
    """Files come in forms, where there is something to be done with files."""
    is_form = kind == b"multipart/form-data" and path.startswith(FORM_PATHS)
    return is_form or kind == b"application/json"


def body_too_large(max_body_bytes: int) -> BodyTooLarge:
    """Worded so that no client takes it for an overflow of the model's context and compacts."""
    return BodyTooLarge(
        f"The request body has more bytes than this server takes ({max_body_bytes / MIB:g} MiB, "
        "`max_body_mb`); send less data, for example smaller images."
    )
