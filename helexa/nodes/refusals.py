"""What a node refuses, as the error that stands for it here."""

import math
from contextlib import suppress
from typing import Any

from helexa.errors import (
    Forbidden,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    ModelBusy,
    ModelNotFound,
    ServiceUnavailable,
    UpstreamError,
    UpstreamMalformed,
)
from helexa.escape import escape
from helexa.nodes.client import Whole
from helexa.nodes.port import NodeLost
from helexa.nodes.told import Told, parse_object

LONGEST_MESSAGE = 500
LONGEST_WAIT = 3600.0
MOST_MB = 1 << 24


def refusal(node: str, answer: Whole) -> HelexaError:
    """The error behind an answer of 400 or more, in the node's own words as far as it has any."""
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
