"""What goes on from a client's headers to a node, and what they tell of the client's session.

No request is relayed as it came: its headers are made anew from the few listed here, so that neither a
client's key nor what only the gateway may say of it ever passes through.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Protocol

import orjson

from helexa.conversation import Json
from helexa.fleet.share import share_headers
from helexa.fleet.view import NodeKind
from helexa.nodes.asked import Asked, Dialect
from helexa.trace import Trace

Header = tuple[str, str]

WISHES = ("x-include-thinking", "anthropic-version", "anthropic-beta")
ANTHROPIC = ("anthropic-version", "anthropic-beta")
ANTHROPIC_VERSION = "2023-06-01"  # for a client that names none
ACCOUNT, KEY = "x-helexa-account-id", "x-helexa-key-id"
# opencode's, Claude Code's, Codex's (as it was and as it is), and what others have made usual.
SESSIONS = (
    "x-session-affinity",
    "x-session-id",
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "x-conversation-id",
)
BILLING = (
    "x-anthropic-billing-header:"  # Claude Code's first block of `system`, new in every session
)
LEADING_CHARACTERS = 2048  # of a bare text
DIGEST_BYTES = 12


class Given(Protocol):
    """The headers of a request: names in any case of letters."""

    def get(self, name: str, /) -> str | None: ...


# -- towards a node --------------------------------------------------------------------------------


def wishes_of(headers: Given) -> tuple[Header, ...]:
    """The headers that say how to answer, as `Asked.wishes` has them."""
    return tuple((name, value) for name in WISHES if (value := headers.get(name)))


def request_headers(asked: Asked, dialect: Dialect, kind: NodeKind, trace: Trace) -> list[Header]:
    """All headers of a request in `dialect` to a node, but those that its client has of its own.

    Who asks is told to helexa's own nodes alone.
    """
    headers = [
        ("content-type", "application/json"),
        ("accept", "text/event-stream" if asked.stream else "application/json"),
        *dialect_headers(asked.wishes, dialect, kind),
    ]
    return headers + origin_headers(asked.session, kind, trace)


def origin_headers(session: str, kind: NodeKind, trace: Trace) -> list[Header]:
    """Whose request it is, and which."""
    headers = [("x-request-id", trace.request_id)]
    if kind == "helexa":
        principal = trace.principal
        headers += [(ACCOUNT, principal.account_id), (KEY, principal.key_id)]
        headers += [(name.decode(), value.decode()) for name, value in share_headers(trace.share)]
    elif session:  # an upstream may be many servers behind a router
        headers.append(("x-session-id", session))
    return headers


def dialect_headers(
    wishes: tuple[Header, ...], dialect: Dialect, kind: NodeKind
) -> Iterator[Header]:
    if dialect == "messages":
        yield from {"anthropic-version": ANTHROPIC_VERSION, **only(wishes, ANTHROPIC)}.items()
    if kind != "openai":
        yield from only(wishes, ("x-include-thinking",)).items()


def only(headers: tuple[Header, ...], names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in headers if name in names}


# -- the session -----------------------------------------------------------------------------------


def session_of(headers: Given, body: Mapping[str, Json], dialect: Dialect) -> str:
    """A short name for what the client is working on, for affinity alone; "" if nothing tells.

    It is what the client says of it, else how its conversation begins: the instructions and the first
    words of the user, which every later turn repeats.
    """
    told = next((value for name in SESSIONS if (value := headers.get(name))), "")
    told = told or told_in(body)
    if told:
        return digest(b"session", told.encode("utf-8", "replace"))
    begins = list(BEGINNINGS[dialect](body))
    return digest(b"begins", orjson.dumps(begins)) if begins else ""


def told_in(body: Mapping[str, Json]) -> str:
    """What the body says of its session; Claude Code says it in the id of the user."""
    metadata = body.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    candidates = (body.get("prompt_cache_key"), body.get("session_id"), user)
    return next((told for told in candidates if isinstance(told, str) and told), "")


def digest(kind: bytes, data: bytes) -> str:
    return blake2b(data, digest_size=DIGEST_BYTES, person=kind).hexdigest()


def chat_beginning(body: Mapping[str, Json]) -> Iterator[Json]:
    yield from until_user(body.get("messages"))


def completions_beginning(body: Mapping[str, Json]) -> Iterator[Json]:
    match body.get("prompt"):
        case str(text) | [str(text), *_] if text:
            yield text[:LEADING_CHARACTERS]
        case [list(ids), *_] | [*ids] if ids:
            yield ids[:LEADING_CHARACTERS]


def responses_beginning(body: Mapping[str, Json]) -> Iterator[Json]:
    if body.get("previous_response_id"):  # it begins elsewhere
        return
    said = body.get("input")
    if body.get("instructions") and said:
        yield body["instructions"]
    if isinstance(said, str) and said:
        yield said
    else:
        yield from until_user(said)


def messages_beginning(body: Mapping[str, Json]) -> Iterator[Json]:
    said = list(until_user(body.get("messages")))
    system = body.get("system")
    blocks = system if isinstance(system, list) else [system]
    if said:
        yield from (block for block in blocks if block and not is_billing(block))
        yield from said


def until_user(messages: Json) -> Iterator[Json]:
    """What is said up to the first words of the user."""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            return
        yield [message.get("role"), message.get("content")]
        if message.get("role") == "user":
            return


def is_billing(block: Json) -> bool:
    text = block.get("text") if isinstance(block, dict) else block
    return isinstance(text, str) and text.startswith(BILLING)


BEGINNINGS = {
    "chat": chat_beginning,
    "completions": completions_beginning,
    "responses": responses_beginning,
    "messages": messages_beginning,
}
