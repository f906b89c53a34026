"""opencode, Claude Code and Codex where the budget is spent: they stop, and do not compact."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_rules import catalogue, rules
from coding_agents import AGENTS, Agent, Home
from process import Helexa, helexa
from watching import Watch

pytestmark = pytest.mark.real

SPENT = "insufficient_quota"
# Title and other side errands included; opencode repeats every 429 five times, within a minute.
MOST_REQUESTS = {"claude-code": 4, "codex": 4, "opencode": 12}


@pytest.fixture(scope="module")
def spent(
    store_dir: Path, qwen3_tokenizer: Path, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Helexa]:
    """All who have no key may spend less than one request of theirs takes."""
    folder = tmp_path_factory.mktemp("spent")
    (folder / "models.toml").write_text(catalogue(qwen3_tokenizer, scripted='aliases = ["small"]'))
    (folder / "scripted.rules").write_text(rules(work))
    options = {
        "HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"),
        "HELEXA_MODELS__PRELOAD": '["scripted"]',
        "HELEXA_ACCOUNTS__LIMITS": '[{account_id = "anonymous", hard_cap = 50}]',
    }
    with helexa(folder / "state", store_dir, options) as process:
        yield process


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_an_agent_stops_when_its_balance_is_spent(home: Home, spent: Helexa, agent: Agent) -> None:
    home.configure(agent, spent.url(), "scripted")
    watch = Watch(spent)
    home.ask(agent, f"WORD by {agent}", "scripted")
    outcomes = watch.settled()
    assert set(outcomes) == {SPENT}  # a compaction would be told as something else
    assert len(outcomes) <= MOST_REQUESTS[agent.name]
