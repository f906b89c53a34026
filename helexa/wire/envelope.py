"""How an error looks to a client: one table, and a shape for each family of dialects.

OpenAI's shape is that of chat, completions and of everything that is nobody's own; Responses has it
too, but its clients repeat a request after 503 alone; Anthropic's has types of its own and words that
Claude Code looks for.
"""

import math
from typing import Any, Literal

import orjson

from helexa.conversation import Json
from helexa.errors import HelexaError, PrincipalBusy
from helexa.escape import escape

Header = tuple[str, str]
Shape = Literal["openai", "responses", "anthropic"]

TRY_AGAIN = (429, 503)  # statuses that a client may expect to pass
TRY_AGAIN_SECONDS = 5.0
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def shape_of(path: str, *, anthropic_version: str | None = None) -> Shape:
    """The shape that the client of a request expects: of its path, and of the header
    `anthropic-version` where several dialects share one."""
    match path.lstrip("/").split("/")[:2]:  # a base URL may end with a slash
        case ["v1", "messages"]:
            return "anthropic"
        case ["v1", "responses"]:
            return "responses"
        case ["v1", "models"] if anthropic_version is not None:
            return "anthropic"
        case _:
            return "openai"


def status_and_body(
    error: BaseException, request_id: str, shape: Shape = "openai"
) -> tuple[int, list[Header], bytes]:
    """Status, headers and JSON body that tell a client of `error`.

    Of an unexpected error only the request id is told: it finds the rest in the log.  What another
    server said in this shape passes as it is.
    """
    told = error if isinstance(error, HelexaError) else unexpected(request_id)
    status = status_of(told, shape)
    headers = [("content-type", "application/json")]
    seconds = seconds_to_wait(told)
    if seconds is not None:
        headers.append(("retry-after", str(seconds)))
    if told.code == "insufficient_quota":
        headers.append(("x-should-retry", "false"))  # many clients repeat every 429 without end
    if status == 401:
        headers.append(("www-authenticate", "Bearer"))
    if told.said is not None:
        return status, headers, told.said
    return status, headers, orjson.dumps(envelope(told, request_id, shape))


def status_of(error: HelexaError, shape: Shape) -> int:
    if shape == "responses" and isinstance(error, PrincipalBusy):
        return 503  # Codex gives up after a 429
    return error.status


def seconds_to_wait(error: HelexaError) -> int | None:
    """When to try again; None where that does not help, or not before somebody did something."""
    if error.code == "insufficient_quota":
        return None
    seconds = error.retry_after
    if seconds is None and error.status in TRY_AGAIN:
        seconds = TRY_AGAIN_SECONDS
    return max(1, math.ceil(seconds)) if seconds is not None and math.isfinite(seconds) else None


# -- the body --------------------------------------------------------------------------------------


def envelope(error: HelexaError, request_id: str, shape: Shape = "openai") -> dict[str, Json]:
    """The whole body, as it also stands in a stream that fails."""
    told = error_object(error, request_id)
    if shape != "anthropic":
        return {"error": told}
    told |= {"type": anthropic_type(error.status), "message": anthropic_message(error)}
    return {"type": "error", "error": told, "request_id": request_id}


def error_object(error: HelexaError, request_id: str) -> dict[str, Json]:
    """The diagnostics of an error stand beside its message, and never hide one of the fixed fields."""
    details = {escape(name): plain(value) for name, value in error.details.items()}
    return details | {
        "message": escape(error.message),
        "type": error.type,
        "code": error.code,
        "param": None if error.param is None else escape(error.param),
        "request_id": request_id,
    }


def anthropic_type(status: int) -> str:
    other = "invalid_request_error" if status < 500 else "api_error"
    return ANTHROPIC_TYPES.get(status, other)


def anthropic_message(error: HelexaError) -> str:
    """Claude Code compacts the conversation when it reads "prompt is too long", and only then."""
    if error.code != "context_length_exceeded":
        return escape(error.message)
    match error.details:
        case {"prompt_len": int(tokens), "max": int(most)}:
            return f"prompt is too long: {tokens} tokens > {most} maximum"
        case _:
            return f"prompt is too long: {escape(error.message)}"


def unexpected(request_id: str) -> HelexaError:
    return HelexaError(
        f"Something went wrong in the server; its log tells more under {request_id}."
    )


def plain(value: Any) -> Json:
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
