"""One error, three shapes: what a client of each dialect reads."""

import json
from typing import Any

import pytest
from anthropic.types import ErrorResponse

from helexa.errors import (
    BodyTooLarge,
    Busy,
    ContextLengthExceeded,
    Forbidden,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    ModelBusy,
    ModelNotFound,
    PrincipalBusy,
    ServiceUnavailable,
    TemplateRenderFailed,
    Unauthorized,
    UpstreamError,
)
from helexa.wire.envelope import Shape, envelope, shape_of, status_and_body

SHAPES: list[Shape] = ["openai", "responses", "anthropic"]


class InsufficientQuota(HelexaError):
    status, type, code = 429, "insufficient_quota", "insufficient_quota"


def told(error: BaseException, shape: Shape) -> tuple[int, dict[str, str], Any]:
    status, headers, body = status_and_body(error, "req_1", shape)
    return status, dict(headers), json.loads(body)


@pytest.mark.parametrize(
    ("path", "version", "shape"),
    [
        ("/v1/messages", None, "anthropic"),
        ("/v1/messages/count_tokens", None, "anthropic"),
        ("/v1/messages/batches", "2023-06-01", "anthropic"),
        ("/v1/messagesque", None, "openai"),
        ("/v1/responses", None, "responses"),
        ("/v1/responses/resp_1/input_items", None, "responses"),
        ("/v1/chat/completions", "2023-06-01", "openai"),
        ("/v1/completions", None, "openai"),
        ("/v1/models", None, "openai"),
        ("/v1/models", "2023-06-01", "anthropic"),
        ("/v1/models/Qwen/Qwen3-8B", "2023-06-01", "anthropic"),
        ("/messages", None, "openai"),
        ("/", None, "openai"),
        ("", None, "openai"),
    ],
)
def test_the_shape_is_that_of_the_path(path: str, version: str | None, shape: Shape) -> None:
    assert shape_of(path, anthropic_version=version) == shape


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("x"), 400, "invalid_request_error"),
        (BodyTooLarge("x"), 400, "invalid_request_error"),
        (TemplateRenderFailed("x"), 422, "invalid_request_error"),
        (ModelBusy("x"), 409, "invalid_request_error"),
        (Unauthorized("x"), 401, "authentication_error"),
        (Forbidden("x"), 403, "permission_error"),
        (ModelNotFound("x"), 404, "not_found_error"),
        (PrincipalBusy("x"), 429, "rate_limit_error"),
        (InsufficientQuota("x"), 429, "rate_limit_error"),
        (Busy("x"), 503, "overloaded_error"),
        (ServiceUnavailable("x"), 503, "overloaded_error"),
        (InsufficientVram("x"), 503, "overloaded_error"),
        (UpstreamError("x"), 502, "api_error"),
        (KeyError("x"), 500, "api_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_anthropics_clients_read_a_type_of_their_own(
    error: Exception, status: int, kind: str
) -> None:
    found, _, body = told(error, "anthropic")
    assert (found, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == "req_1"
    assert ErrorResponse.model_validate(body, strict=True).error.type == kind


def test_code_and_diagnostics_stand_inside_of_the_error() -> None:
    _, _, body = told(InsufficientVram("No room.", free_mb=10, required_mb=20), "anthropic")
    assert body["error"] == {
        "type": "overloaded_error",
        "message": "No room.",
        "code": "insufficient_vram",
        "param": None,
        "request_id": "req_1",
        "free_mb": 10,
        "required_mb": 20,
    }


def test_one_who_asks_too_much_at_once_is_busy_on_responses_alone() -> None:
    error = PrincipalBusy("You have 2 requests already.", retry_after=3)
    assert [told(error, shape)[0] for shape in SHAPES] == [429, 503, 429]
    assert {told(error, shape)[1]["retry-after"] for shape in SHAPES} == {"3"}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_spent_balance_is_not_asked_for_again(shape: Shape) -> None:
    status, headers, body = told(InsufficientQuota("The budget is spent.", retry_after=60), shape)
    assert (status, body["error"]["code"]) == (429, "insufficient_quota")
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers


@pytest.mark.parametrize("shape", SHAPES)
def test_no_other_error_forbids_to_try_again(shape: Shape) -> None:
    assert "x-should-retry" not in told(Busy("Later."), shape)[1]


@pytest.mark.parametrize("shape", ["openai", "responses"])
def test_a_prompt_that_is_too_long_is_told_in_words_and_by_its_code(shape: Shape) -> None:
    error = ContextLengthExceeded("This model's maximum ...", prompt_len=9, max=8, param="messages")
    status, _, body = told(error, shape)
    assert status == 400
    assert body == {
        "error": {
            "message": "This model's maximum ...",
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
            "param": "messages",
            "request_id": "req_1",
            "prompt_len": 9,
            "max": 8,
        }
    }


def test_claude_code_is_told_of_it_in_the_words_that_it_looks_for() -> None:
    error = ContextLengthExceeded("This model's ...", prompt_len=9, max=8)
    assert told(error, "anthropic")[2]["error"]["message"] == (
        "prompt is too long: 9 tokens > 8 maximum"
    )
    upstream = UpstreamError("at most 8 tokens\x1b")
    upstream.code = "context_length_exceeded"
    assert told(upstream, "anthropic")[2]["error"]["message"] == (
        r"prompt is too long: at most 8 tokens\x1b"
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_body_is_the_same_within_a_stream(shape: Shape) -> None:
    error = Busy("Later.", queue_depth=8)
    assert envelope(error, "req_1", shape) == told(error, shape)[2]
