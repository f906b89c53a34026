"""How errors look on the wire."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.errors import (
    Busy,
    ContextLengthExceeded,
    HelexaError,
    InsufficientVram,
    InvalidRequest,
    PrincipalBusy,
    StoreError,
    Unauthorized,
    UpstreamError,
)
from helexa.wire.envelope import status_and_body


def told(error: BaseException) -> tuple[int, dict[str, str], Any]:
    status, headers, body = status_and_body(error, "req_1")
    return status, dict(headers), json.loads(body)["error"]


def test_an_error_has_all_fields_and_its_diagnostics() -> None:
    status, headers, error = told(InsufficientVram("No room.", free_mb=10, required_mb=20))
    assert status == 503
    assert headers == {"content-type": "application/json", "retry-after": "5"}
    assert error == {
        "message": "No room.",
        "type": "api_error",
        "code": "insufficient_vram",
        "param": None,
        "request_id": "req_1",
        "free_mb": 10,
        "required_mb": 20,
    }


def test_the_offending_field_is_named() -> None:
    _, _, error = told(ContextLengthExceeded("Too long.", param="messages", prompt_len=9, max=8))
    assert (error["param"], error["prompt_len"], error["max"]) == ("messages", 9, 8)


@pytest.mark.parametrize(
    ("seconds", "header"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (29.5, "30"), (-3, "1")]
)
def test_a_client_is_told_to_wait_for_whole_seconds(seconds: float, header: str) -> None:
    assert told(Busy("Later.", retry_after=seconds))[1]["retry-after"] == header


class InsufficientQuota(HelexaError):
    status, code = 429, "insufficient_quota"


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (Busy("A queue."), "5"),
        (PrincipalBusy("You."), "5"),
        (StoreError("A load failed."), "5"),
        (StoreError("A load failed.", retry_after=30), "30"),
        (StoreError("It failed for good.", retry_after=math.inf), None),
        (InsufficientQuota("Spent."), None),
        (InsufficientQuota("Spent until tomorrow.", retry_after=3600), None),
        (InvalidRequest("No."), None),
        (UpstreamError("Theirs."), None),
        (KeyError("Ours."), None),
    ],
)
def test_who_may_come_back_is_told_when(error: Exception, header: str | None) -> None:
    assert told(error)[1].get("retry-after") == header


def test_who_is_not_known_is_told_how_to_say_who_they_are() -> None:
    assert told(Unauthorized("Who?"))[1]["www-authenticate"] == "Bearer"


def test_an_unexpected_error_tells_nothing_but_the_request_id() -> None:
    status, _, error = told(KeyError("/etc/secret"))
    assert (status, error["type"], error["code"]) == (500, "api_error", None)
    assert "req_1" in error["message"]
    assert "secret" not in json.dumps(error)


def test_diagnostics_do_not_hide_the_fixed_fields() -> None:
    error = told(HelexaError("Mine.", type="theirs", code="theirs"))[2]
    assert (error["type"], error["code"]) == ("api_error", None)


@pytest.mark.parametrize(
    "text", ["\ud800", "a\x00b", "\x1b[31m", "\u202egnp.exe", "\n\r\t", "\x7f\x9b"]
)
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    _, _, error = told(InvalidRequest(text, param=text, given=text, nested=[{text: text}]))
    assert text not in json.dumps(error, ensure_ascii=False)
    assert "\\" in error["message"]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(message=st.text(), param=st.none() | st.text(), details=json_like)
def test_whatever_an_error_carries_is_json(message: str, param: str | None, details: Any) -> None:
    _, _, error = told(
        InvalidRequest(message, param=param, details=details, huge=10**40, nan=math.nan)
    )
    assert error["type"] == "invalid_request_error"
