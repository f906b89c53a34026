"""What a node refuses, as the error that stands for it here: of operations, of answers, of streams."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from helexa.errors import (
    BodyTooLarge,
    Busy,
    ContextLengthExceeded,
    Forbidden,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    MissingModelField,
    ModelBusy,
    ModelNotFound,
    NotLoaded,
    PrincipalBusy,
    RequestTimeout,
    ResponseNotFound,
    ServiceUnavailable,
    TemplateRenderFailed,
    UpstreamError,
    UpstreamMalformed,
    VisionUnsupported,
)
from helexa.escape import escape
from helexa.nodes.client import Whole
from helexa.nodes.port import NodeLost
from helexa.nodes.told import Told, parse_object
from helexa.wire.upstream import is_diagnostic

LONGEST_MESSAGE = 500
LONGEST_WAIT = 3600.0
MOST_MB = 1 << 24
OUR_TOKEN = (401, 403, 407)  # statuses that speak of the gateway, and not of its client
TOO_LONG = "context length is"  # in the words of OpenAI, vLLM, SGLang, ...
# What nodes refuse by the table of errors, by its code.
TABLE: Mapping[str, type[HelexaError]] = {
    str(error.code): error
    for error in (
        BodyTooLarge,
        Busy,
        ContextLengthExceeded,
        InsufficientVram,
        MissingModelField,
        ModelBusy,
        NotLoaded,
        RequestTimeout,
        ResponseNotFound,
        ServiceUnavailable,
        TemplateRenderFailed,
        VisionUnsupported,
    )
}


def operation_error(node: str, answer: Whole) -> HelexaError:
    """Of a look, a load or an unload that was answered with 400 or more, in the node's own words."""
    told = error_object(answer)
    said = told.text("message", most=LONGEST_MESSAGE) or f"it answers {answer.status}"
    message, wait = f"node {node}: {said}", retry_after(answer)
    match answer.status, told.text("code"):
        case 401, _:
            return NodeLost(f"node {node} does not accept the token of this gateway")
        case _, "insufficient_vram":
            return InsufficientVram(message, retry_after=wait, **memory(told))
        case 404, _:
            return ModelNotFound(message, param="model")
        case 409, _:
            return ModelBusy(message)
        case 403, _:
            return Forbidden(message)
        case 503, _:
            return ServiceUnavailable(message, retry_after=wait)
        case status, _ if status < 500:
            return InvalidRequest(message)
    return UpstreamError(message)


def answer_error(node: str, kind: str, answer: Whole, *, passes: bool) -> HelexaError:
    """The error behind an answer that is not 200; `passes` if the client would understand its body."""
    told, wait = error_object(answer), retry_after(answer)
    if answer.status in OUR_TOKEN:
        return UpstreamError(
            f"node {node} does not let this gateway in ({answer.status}): see `token` of its [[nodes]]"
        )
    error = error_of(node, kind, answer.status, told, wait)
    if passes and kind == "openai" and answer.header("content-type").startswith("application/json"):
        error.said = answer.body
    return error


def stream_error(node: str, kind: str, error: UpstreamError) -> HelexaError:
    """The same of an error in a stream, as `helexa.wire.upstream` reads it."""
    told = {"message": error.message, "code": error.code, "type": error.type, **error.details}
    return error_of(node, kind, error.status, Told(told | {"param": error.param}), None)


def error_of(node: str, kind: str, status: int, told: Told, wait: float | None) -> HelexaError:
    """Helexa nodes and neurons refuse by the table; of others what everybody must act on is known."""
    code = told.text("code")
    message = told.text("message", most=LONGEST_MESSAGE) or f"node {node} answers {status}"
    more: dict[str, Any] = {"param": told.text("param") or None, "retry_after": wait}
    if kind != "openai":
        return by_table(status, code, message, more, diagnostics(told))
    if status == 404 and (code == "model_not_found" or told.text("param") == "model"):
        return NotLoaded(message, **more)
    if status in (429, 503):
        return busy(status, message, more)
    if code == "context_length_exceeded" or TOO_LONG in message:
        return ContextLengthExceeded(message, **more)
    return other(status, told, message, more)


def by_table(
    status: int, code: str, message: str, more: dict[str, Any], details: dict[str, Any]
) -> HelexaError:
    if code == "rate_limit_exceeded" and status == 429:
        return PrincipalBusy(message, **more)
    if code in TABLE:
        return TABLE[code](message, **more, **details)
    if status == 400:
        return InvalidRequest(message, **more)
    return other(status, Told({"code": code}), message, more)


def busy(status: int, message: str, more: dict[str, Any]) -> HelexaError:
    return Busy(message, **more) if status == 503 else PrincipalBusy(message, **more)


def other(status: int, told: Told, message: str, more: dict[str, Any]) -> UpstreamError:
    """Its code is ours, of which there are few; the upstream's stands beside it."""
    code = told.text("code")
    details: dict[str, Any] = {}
    if code and code != UpstreamError.code:
        details["upstream_code"] = code
    error = UpstreamError(message, **more, **details)
    error.status = status if 400 <= status < 600 else UpstreamError.status
    if error.status < 500:
        error.type = InvalidRequest.type
    return error


def diagnostics(told: Told) -> dict[str, Any]:
    taken = ("message", "param", "retry_after", "said", "self")
    values = told.values.items()
    return {key: value for key, value in values if is_diagnostic(key, value) and key not in taken}


# -- what is told of it ---------------------------------------------------------------------------------


def error_object(answer: Whole) -> Told:
    """In OpenAI's envelope, or, as older servers write it, `{"error": "words"}`."""
    with suppress(UpstreamMalformed):
        told = parse_object(answer.body)
        words = told.text("error", most=LONGEST_MESSAGE)
        return Told({"message": words}) if words else told.object("error")
    return Told({"message": escape(answer.body[:100].decode("utf-8", "replace")).strip()})


def retry_after(answer: Whole) -> float | None:
    """In seconds; a date counts as not told."""
    try:
        seconds = float(answer.header("retry-after"))
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None


def memory(told: Told) -> dict[str, Any]:
    names = ("free_mb", "required_mb")
    return {name: told.count(name, MOST_MB) for name in names if told.has(name)}
