"""What of a client's headers goes on to a node, and what they tell of its session."""

from typing import Any

import pytest
from attrs import evolve
from relayed import Kind, prepared, trace_of
from werkzeug.datastructures import Headers

from helexa.fleet.share import Share
from helexa.nodes.asked import Dialect
from helexa.nodes.headers import request_headers, session_of, wishes_of

CLIENT = Headers(
    {
        "Authorization": "Bearer mine",
        "X-Api-Key": "mine",
        "Cookie": "a=b",
        "X-Helexa-Account-Id": "root",
        "X-Forwarded-For": "1.2.3.4",
        "Anthropic-Version": "2023-06-01",
        "Anthropic-Beta": "x,y",
        "X-Include-Thinking": "true",
        "Connection": "close",
    }
)


def sent(kind: Kind, dialect: Dialect = "chat", **more: Any) -> dict[str, str]:
    asked = prepared(dialect, wishes=wishes_of(CLIENT), **more).asked
    trace = trace_of()
    trace.share = Share(3, "batch")
    headers = request_headers(asked, dialect, kind, trace)
    assert len(dict(headers)) == len(headers)
    return dict(headers)


async def test_a_helexa_node_is_told_who_asks_and_how_to_answer() -> None:
    assert sent("helexa") == {
        "content-type": "application/json",
        "accept": "application/json",
        "x-include-thinking": "true",
        "x-request-id": "req_1",
        "x-helexa-account-id": "account",
        "x-helexa-key-id": "key",
        "x-helexa-weight": "3",
        "x-helexa-priority": "batch",
    }


@pytest.mark.parametrize("kind", ["neuron", "openai"])
async def test_nobody_else_is_told_who_asks(kind: Kind) -> None:
    found = sent(kind)
    assert not [name for name in found if name.startswith("x-helexa-")]
    assert "mine" not in str(found)
    assert found["x-session-id"] == "s3ss10n"


async def test_a_stream_is_asked_for_as_one_and_messages_in_their_version() -> None:
    found = sent("openai", "messages", stream=True)
    assert found["accept"] == "text/event-stream"
    assert (found["anthropic-version"], found["anthropic-beta"]) == ("2023-06-01", "x,y")
    assert "anthropic-beta" not in sent("helexa", "chat")


# -- sessions ------------------------------------------------------------------------------------------


def session(dialect: Dialect, body: dict[str, Any], **headers: str) -> str:
    return session_of(Headers(headers), body, dialect)


@pytest.mark.parametrize(
    "name",
    ["x-session-affinity", "x-session-id", "x-claude-code-session-id", "session-id", "session_id"],
)
def test_what_clients_say_of_their_session_counts_before_what_they_say(name: str) -> None:
    first = {"messages": [{"role": "user", "content": "a"}]}
    second = {"messages": [{"role": "user", "content": "b"}]}
    told = session_of(Headers([(name.title(), "ses_1")]), first, "chat")
    assert told
    assert told == session_of(Headers([(name, "ses_1")]), second, "chat")
    assert told != session_of(Headers([(name, "ses_2")]), second, "chat")


@pytest.mark.parametrize(
    "body",
    [
        {"prompt_cache_key": "abc"},
        {"session_id": "abc"},
        {"metadata": {"user_id": "abc"}},
    ],
)
def test_the_body_may_tell_the_session(body: dict[str, Any]) -> None:
    same = session("chat", {**body, "messages": [{"role": "user", "content": "a"}]})
    assert same == session("chat", {**body, "messages": [{"role": "user", "content": "b"}]}) != ""


def turns(*words: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": word} for i, word in enumerate(words)]


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("dialect", "first", "later", "other"),
    [
        (
            "chat",
            {"messages": [SYSTEM, *turns("a")]},
            {"messages": [SYSTEM, *turns("a", "b", "c")]},
            {"messages": [SYSTEM, *turns("z")]},
        ),
        (
            "messages",
            {"system": "Be brief.", "messages": turns("a")},
            {"system": "Be brief.", "messages": turns("a", "b", "c")},
            {"system": "Be long.", "messages": turns("a")},
        ),
        (
            "responses",
            {"instructions": "Be brief.", "input": turns("a")},
            {"instructions": "Be brief.", "input": turns("a", "b", "c")},
            {"instructions": "Be brief.", "input": "a"},
        ),
        (
            "completions",
            {"prompt": "a" * 3000},
            {"prompt": "a" * 4000},
            {"prompt": "b" * 3000},
        ),
    ],
)
def test_a_conversation_that_goes_on_is_the_same_session(
    dialect: Dialect, first: dict[str, Any], later: dict[str, Any], other: dict[str, Any]
) -> None:
    assert session(dialect, first) == session(dialect, later) != ""
    assert session(dialect, first) != session(dialect, other)


def test_the_billing_line_of_claude_code_does_not_make_a_session() -> None:
    def body(line: str) -> dict[str, Any]:
        system = [{"type": "text", "text": line}, {"type": "text", "text": "Be brief."}]
        return {"system": system, "messages": turns("a")}

    lines = [f"x-anthropic-billing-header: cch={i};" for i in range(2)]
    assert session("messages", body(lines[0])) == session("messages", body(lines[1]))


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("chat", {}),
        ("chat", {"messages": "x"}),
        ("chat", {"messages": [3]}),
        ("responses", {"previous_response_id": "resp_1", "input": "a"}),
        ("responses", {"input": []}),
        ("completions", {"prompt": []}),
        ("messages", {"system": "Be brief."}),
    ],
)
def test_where_nothing_tells_there_is_no_session(dialect: Dialect, body: dict[str, Any]) -> None:
    assert session(dialect, body) == ""


def test_a_session_s_name_tells_nothing_of_it() -> None:
    asked = evolve(
        prepared().asked, session=session("chat", {"prompt_cache_key": "secret\r\nx: y"})
    )
    assert asked.session.isalnum()
    assert len(asked.session) == 24
