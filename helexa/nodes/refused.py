"""What a node answers in place of an answer, as the error that stands for it here."""

from collections.abc import Mapping
from typing import Any

from helexa.errors import (
    BodyTooLarge,
    Busy,
    ContextLengthExceeded,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    MissingModelField,
    ModelBusy,
    NotLoaded,
    PrincipalBusy,
    RequestTimeout,
    ResponseNotFound,
    ServiceUnavailable,
    TemplateRenderFailed,
    UpstreamError,
    VisionUnsupported,
)
from helexa.nodes.client import Whole
from helexa.nodes.refusals import LONGEST_MESSAGE, error_object, retry_after
from helexa.nodes.told import Told
from helexa.wire.upstream import is_diagnostic

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


def refused(node: str, kind: str, answer: Whole, *, passes: bool) -> HelexaError:
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


def failed(node: str, kind: str, error: UpstreamError) -> HelexaError:
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
