"""opencode, Claude Code and Codex, as they are installed, against a real process: what goes well."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from agent_rules import LOAD_SECONDS, ONE, PATCHED, SECRET, SUMMARY, TWO
from coding_agents import AGENTS, CODEX, OPENCODE, Agent, Home
from process import Helexa, call
from watching import Watch, conversation

from helexa.conversation import Json
from helexa.text.chat import ChatMessage, messages_of

pytestmark = pytest.mark.real


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_an_agent_reads_a_file_with_its_tool_and_answers(
    home: Home, scripted: Helexa, agent: Agent
) -> None:
    home.configure(agent, scripted.url())
    watch = Watch(scripted)
    done = home.ask(agent, f"WORD by {agent}")
    assert done.code == 0, done
    assert SECRET in agent.answer(done)
    watch.settled()
    assert watch.steps == ["tool_calls", "stop"]


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_an_agent_calls_two_tools_at_once_and_sends_back_what_was_thought(
    home: Home, scripted: Helexa, agent: Agent
) -> None:
    home.configure(agent, scripted.url())
    watch = Watch(scripted)
    done = home.ask(agent, f"BOTH by {agent}")
    assert agent.answer(done) == f"{ONE} and {TWO}, I read."
    (called,) = [turn for turn in turns(watch.bodies[-1]) if "tool_calls" in turn]
    assert called["reasoning_content"] == "Two files, then."
    assert len(called["tool_calls"]) == 2
    one, two = [turn["content"] for turn in turns(watch.bodies[-1]) if turn["role"] == "tool"]
    assert (ONE in one, TWO in two) == (True, True)  # in whatever order the agent sent them


def turns(body: Json) -> list[ChatMessage]:
    """A request as a chat template reads it."""
    return messages_of(conversation(body))


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_an_agent_waits_for_a_cold_load(home: Home, scripted: Helexa, agent: Agent) -> None:
    home.configure(agent, scripted.url())
    call("POST", f"{scripted.url('node')}/models/unload", {"model_id": "slow"})
    watch = Watch(scripted)
    done = home.ask(agent, f"WORD by {agent}", "slow")
    assert SECRET in agent.answer(done)
    watch.settled()
    loading, answered = [line for line in watch.ended if line["model"] == "slow"]
    assert loading["first_token_seconds"] >= LOAD_SECONDS > answered["first_token_seconds"]


def test_codex_writes_files_by_a_patch_which_is_a_custom_tool(
    home: Home, scripted: Helexa, work: Path
) -> None:
    home.configure(CODEX, scripted.url())
    watch = Watch(scripted)
    done = home.ask(CODEX, "PATCH")
    assert CODEX.answer(done) == "The patch is applied."
    assert (work / "patched.txt").read_text() == f"{PATCHED}\n"
    kinds = [item["type"] for item in watch.bodies[-1]["input"]]
    assert ("custom_tool_call", "custom_tool_call_output") in pairwise(kinds)


def test_codex_knows_the_model_by_the_printed_list(home: Home, scripted: Helexa) -> None:
    home.configure(CODEX, scripted.url())
    watch = Watch(scripted)
    done = home.ask(CODEX, f"WORD by {CODEX}")
    assert "metadata" not in done.out  # it warns of models that it does not know
    assert "You are a coding agent. You run in Codex" in json.dumps(watch.bodies[0])
    assert "apply_patch" in [tool.get("name") for tool in watch.bodies[0]["tools"]]


def test_codex_compacts_before_the_window_is_full_and_goes_on(home: Home, scripted: Helexa) -> None:
    home.configure(CODEX, scripted.url())
    watch = Watch(scripted)
    command = CODEX.command(f"WORD by {CODEX}", "scripted")
    done = home.run((*command, "-c", "model_auto_compact_token_limit=5000"))
    assert done.code == 0, done
    assert CODEX.answer(done) == "I go on."
    called, compacted, went_on = watch.bodies
    assert called["tools"] == went_on["tools"] != compacted["tools"] == []
    assert SUMMARY in json.dumps(went_on)


def test_opencode_lists_the_model_with_its_real_limits(home: Home, scripted: Helexa) -> None:
    home.configure(OPENCODE, scripted.url())
    done = home.run(("opencode", "models", "helexa", "--verbose"))
    assert done.code == 0, done
    assert '"context": 131072,\n    "input": 122880,\n    "output": 8192' in done.out
