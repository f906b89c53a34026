"""opencode, Claude Code and Codex where something goes wrong: each does what its user would want."""

import json
from pathlib import Path

import pytest
from agent_rules import SECRET, SUMMARY, breaking_rules, rules
from coding_agents import AGENTS, CLAUDE_CODE, CODEX, OPENCODE, Agent, Home, done, kill
from process import Helexa, call
from watching import Watch, stream_held_open, wait_until

pytestmark = pytest.mark.real

OVERFLOW, BUSY = "context_length_exceeded", "rate_limit_exceeded"
MOST_REQUESTS = 8  # of an agent for one question, title, repeats and compaction included


# -- too long --------------------------------------------------------------------------------------------


def test_claude_code_says_that_the_prompt_is_too_long(home: Home, scripted: Helexa) -> None:
    """It believes in a larger window than there is; it tries to compact, and gives up."""
    home.configure(CLAUDE_CODE, scripted.url(), "scripted")
    watch = Watch(scripted)
    ended = home.ask(CLAUDE_CODE, f"LONG by {CLAUDE_CODE}", "narrow")
    told = json.loads(ended.out)
    assert (told["terminal_reason"], told["result"]) == ("prompt_too_long", "Prompt is too long")
    assert watch.settled()[:2] == ["tool_calls", OVERFLOW]
    assert set(watch.outcomes[2:]) <= {OVERFLOW}
    assert len(watch.outcomes) <= MOST_REQUESTS


def test_claude_code_that_knows_the_window_does_not_even_ask(home: Home, scripted: Helexa) -> None:
    home.configure(CLAUDE_CODE, scripted.url(), "tiny")
    watch = Watch(scripted)
    told = json.loads(home.ask(CLAUDE_CODE, "WORD", "tiny").out)
    assert (told["terminal_reason"], watch.settled()) == ("blocking_limit", [])


def test_codex_says_that_there_is_no_room_and_does_not_repeat(home: Home, scripted: Helexa) -> None:
    home.configure(CODEX, scripted.url(), "scripted")
    watch = Watch(scripted)
    ended = home.ask(CODEX, f"LONG by {CODEX}", "tiny")
    assert ended.code == 1
    assert "ran out of room in the model's context window" in ended.out
    assert watch.settled() == [OVERFLOW]


def test_opencode_compacts_what_is_too_long_and_goes_on(home: Home, scripted: Helexa) -> None:
    home.configure(OPENCODE, scripted.url(), "narrow")
    watch = Watch(scripted)
    ended = home.ask(OPENCODE, f"LONG by {OPENCODE}", "narrow")
    assert OPENCODE.answer(ended) == "I go on."
    assert set(watch.settled()) == {"tool_calls", OVERFLOW, "stop"}
    assert watch.steps == ["tool_calls", OVERFLOW, "stop"]
    *_, compacted, went_on = watch.bodies
    assert ("tools" in compacted, "tools" in went_on) == (False, True)
    assert SUMMARY in json.dumps(went_on)


def test_opencode_does_not_compact_without_end_what_can_never_fit(
    home: Home, scripted: Helexa
) -> None:
    home.configure(OPENCODE, scripted.url(), "tiny")
    watch = Watch(scripted)
    ended = home.ask(OPENCODE, "WORD", "tiny")
    assert ended.code == 1
    assert "ContextOverflowError" in ended.out
    assert watch.settled().count(OVERFLOW) == 1


# -- broken off, refused, killed -----------------------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_an_agent_asks_again_when_an_answer_breaks_off(
    home: Home, scripted: Helexa, work: Path, agent: Agent
) -> None:
    write_rules(scripted, breaking_rules())
    home.configure(agent, scripted.url(), "breaking")
    watch = Watch(scripted)
    with home.start(agent.command(f"WORD by {agent}", "breaking")) as process:
        wait_until(lambda: "service_unavailable" in watch.outcomes)
        write_rules(scripted, rules(work))
        ended = done(process)
    assert SECRET in agent.answer(ended)
    watch.settled()
    assert watch.steps[-2:] == ["tool_calls", "stop"]
    assert len(watch.outcomes) <= MOST_REQUESTS


def write_rules(scripted: Helexa, text: str) -> None:
    """New rules for the model `breaking`, which it has from its next load on."""
    (scripted.state_dir.parent / "breaking.rules").write_text(text)
    call("POST", f"{scripted.url('node')}/models/unload", {"model_id": "breaking"})


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_an_agent_comes_back_when_there_is_room_again(
    home: Home, crowded: Helexa, agent: Agent
) -> None:
    home.configure(agent, crowded.url())
    watch = Watch(crowded)
    command = agent.command(f"WORD by {agent}", "scripted")
    with stream_held_open(crowded) as end, home.start(command) as process:
        wait_until(lambda: BUSY in watch.outcomes)
        end()
        ended = done(process)
    assert SECRET in agent.answer(ended)
    watch.settled()
    assert watch.steps[-1] == "stop"
    assert watch.outcomes.count(BUSY) <= MOST_REQUESTS


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_a_killed_agent_leaves_nothing_behind(home: Home, scripted: Helexa, agent: Agent) -> None:
    home.configure(agent, scripted.url())
    watch = Watch(scripted)
    with home.start(agent.command("ENDLESS", "scripted")) as process:
        wait_until(lambda: scripted.status["open"]["sequences"] > 0)
        kill(process)
    assert set(watch.settled()) == {"client_left"}
