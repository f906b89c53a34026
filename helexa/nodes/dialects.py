"""What a node speaks, and a request in its words."""

from collections.abc import Mapping
from typing import Literal

import orjson
from attrs import evolve, frozen

from helexa.config.schema import RemoteNode
from helexa.conversation import Conversation, Json
from helexa.errors import InvalidRequest
from helexa.nodes.asked import Asked, Dialect, Prepared
from helexa.wire import openai_chat, openai_responses
from helexa.wire.openai_completions.request import DEFAULT_MAX_TOKENS

PATHS: Mapping[Dialect, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
BY_KIND: Mapping[str, tuple[Dialect, ...]] = {
    "helexa": ("chat", "completions", "responses", "messages"),
    "neuron": ("chat", "responses"),
    "openai": ("chat", "completions"),
}
WRITTEN: tuple[Literal["chat", "responses"], ...] = ("chat", "responses")
# Where each says how long an answer may be; the first that is there counts, the last is usual.
LIMITS: Mapping[Dialect, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}


@frozen
class Spoken:
    """A request as one node gets it.

    `passes`: it is the client's own, and so is the answer.  `adds_usage`: the chunk of usage at the end
    of the stream is asked for by us alone.
    """

    dialect: Dialect
    passes: bool
    body: bytes
    adds_usage: bool = False


def speak(node: RemoteNode, prepared: Prepared) -> Spoken:
    """InvalidRequest for what cannot be said in any dialect of the node."""
    asked, known = prepared.asked, dialects_of(node)
    if asked.passes and asked.dialect in known:
        return passed_on(node, asked, prepared)
    for dialect in WRITTEN:
        if dialect in known:
            return Spoken(dialect, False, dumped(written(dialect, prepared, node.kind)))
    raise InvalidRequest(
        f"Node {node.name}, where the model runs, is not asked in this dialect: it speaks "
        f"{', '.join(known)}.",
        param="model",
    )


def dialects_of(node: RemoteNode) -> tuple[Dialect, ...]:
    return node.dialects or BY_KIND[node.kind]


# -- as it came --------------------------------------------------------------------------------------


def passed_on(node: RemoteNode, asked: Asked, prepared: Prepared) -> Spoken:
    """The client's own body with the model's id, a hard stop, and a wish for usage."""
    body = {**asked.body, "model": prepared.entry.id}
    if prepared.max_tokens is not None:
        body |= shortened(asked, prepared.max_tokens)
    needs_usage = (
        node.kind != "helexa" and asked.stream and asked.dialect in ("chat", "completions")
    )
    options = asked.body.get("stream_options") or {}
    adds_usage = needs_usage and not options.get("include_usage")
    if adds_usage:
        body["stream_options"] = {**options, "include_usage": True}
    return Spoken(asked.dialect, True, dumped(body), adds_usage)


def shortened(asked: Asked, max_tokens: int) -> dict[str, Json]:
    """What bounds the answer, no longer than `max_tokens`."""
    names = LIMITS[asked.dialect]
    told = {name: asked.body[name] for name in names if asked.body.get(name) is not None}
    usual = DEFAULT_MAX_TOKENS if asked.dialect == "completions" else max_tokens
    told = told or {names[-1]: usual}
    return {name: min(most, max_tokens) for name, most in told.items()}


# -- in other words ----------------------------------------------------------------------------------


def written(dialect: Literal["chat", "responses"], prepared: Prepared, kind: str) -> Json:
    asked = prepared.asked
    conversation = bounded(prepared)
    if dialect == "responses":
        return openai_responses.write_request(conversation, stream=asked.stream)
    return openai_chat.write_request(conversation, stream=asked.stream, include_usage=asked.stream)


def bounded(prepared: Prepared) -> Conversation:
    conversation = prepared.asked.conversation
    limits = [most for most in (conversation.max_tokens, prepared.max_tokens) if most is not None]
    return evolve(conversation, model=prepared.entry.id, max_tokens=min(limits) if limits else None)


def dumped(body: Json) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise InvalidRequest("The body is nested too deep to be passed on.") from None
