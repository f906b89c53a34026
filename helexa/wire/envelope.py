"""How an error looks to a client of the OpenAI-style dialects: one envelope, one table."""

import math
from typing import Any

import orjson

from helexa.errors import HelexaError
from helexa.escape import escape

Header = tuple[str, str]

TRY_AGAIN = (429, 503)  # statuses that a client may expect to pass
TRY_AGAIN_SECONDS = 5.0


def status_and_body(error: BaseException, request_id: str) -> tuple[int, list[Header], bytes]:
    """Status, headers and JSON body that tell a client of `error`.

    Of an unexpected error only the request id is told: it finds the rest in the log.
    """
    told = error if isinstance(error, HelexaError) else unexpected(request_id)
    headers = [("content-type", "application/json")]
    seconds = seconds_to_wait(told)
    if seconds is not None:
        headers.append(("retry-after", str(seconds)))
    if told.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    return told.status, headers, orjson.dumps({"error": error_object(told, request_id)})


def seconds_to_wait(error: HelexaError) -> int | None:
    """When to try again; None where that does not help, or not before somebody did something."""
    seconds = error.retry_after
    if seconds is None and error.status in TRY_AGAIN and error.code != "insufficient_quota":
        seconds = TRY_AGAIN_SECONDS
    return max(1, math.ceil(seconds)) if seconds is not None and math.isfinite(seconds) else None


def error_object(error: HelexaError, request_id: str) -> dict[str, Any]:
    """The diagnostics of an error stand beside its message, and never hide one of the fixed fields."""
    details = {escape(name): plain(value) for name, value in error.details.items()}
    return details | {
        "message": escape(error.message),
        "type": error.type,
        "code": error.code,
        "param": None if error.param is None else escape(error.param),
        "request_id": request_id,
    }


def unexpected(request_id: str) -> HelexaError:
    return HelexaError(
        f"Something went wrong in the server; its log tells more under {request_id}."
    )


def plain(value: Any) -> Any:
    """`value` as JSON can carry it: text without control characters and lone surrogates."""
    match value:
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case float() if math.isfinite(value):
            return value
        case dict():
            return {escape(str(key)): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return escape(str(value))
