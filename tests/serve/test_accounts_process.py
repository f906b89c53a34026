"""Keys and budgets through HTTP, against a real process whose model says what its rules tell."""

import json
import os
import random
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bursts import burst
from kills import kill
from process import Helexa, call, helexa, select_nothing
from spenders import make_key, model_options

CONFIG = """
[accounts]
[[accounts.keys]]
key = "sk-good-0123456789abcdef"
account_id = "lab"
key_id = "good"
[[accounts.keys]]
key = "sk-balance-0123456789abcdef"
account_id = "acct"
key_id = "balance"
hard_cap = 300
[[accounts.keys]]
key = "sk-rolling-0123456789abcdef"
account_id = "acct"
key_id = "rolling"
hard_cap = 10
window = { kind = "rolling", seconds = 3600 }
[[accounts.keys]]
key = "sk-picky-0123456789abcdef"
account_id = "lab"
key_id = "picky"
allowed_models = ["another"]
[[accounts.keys]]
key = "sk-heavy-0123456789abcdef"
account_id = "heavy"
weight = 3
[[accounts.keys]]
key = "sk-light-0123456789abcdef"
account_id = "light"
[[accounts.keys]]
key = "sk-batch-0123456789abcdef"
account_id = "batch"
priority = "batch"
"""
SECRETS = [line.split('"')[1] for line in CONFIG.splitlines() if line.startswith("key = ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "helexa.toml").write_text(CONFIG)
    (folder / "helexa.toml").chmod(0o600)
    return folder


def started(folder: Path, store_dir: Path, state_dir: Path) -> Any:
    options = {**model_options(folder), "HELEXA_ADMISSION__MAX_IN_FLIGHT": "1"}
    command = ("-m", "helexa", "serve", "--config", str(folder / "helexa.toml"))
    return helexa(state_dir, store_dir, options, command)


@pytest.fixture(scope="module")
def kept(folder: Path, store_dir: Path) -> Iterator[Helexa]:
    with started(folder, store_dir, folder / "state") as process:
        yield process


def ask(process: Helexa, secret: str | None, text: str = "hi", **options: Any) -> Any:
    headers = {"authorization": f"Bearer sk-{secret}-0123456789abcdef"} if secret else {}
    body = {"model": "said", "messages": [{"role": "user", "content": text}], **options}
    return call("POST", process.url() + "/v1/chat/completions", body, headers)


def spent(process: Helexa, key: str) -> dict[str, Any]:
    rows = process.control("spend", by="key")
    return next((row for row in rows if row["key"] == key), {"requests": 0, "tokens": 0})


def metric(process: Helexa, name: str) -> float:
    with urllib.request.urlopen(process.url("metrics") + "/metrics") as response:
        lines = response.read().decode().splitlines()
    return float(next((line.split()[-1] for line in lines if line.startswith(name)), 0))


# -- who ---------------------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_though_none_is_needed(kept: Helexa) -> None:
    status, _, body = ask(kept, "wrong")
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert ask(kept, "good")[0] == 200
    assert ask(kept, None)[0] == 200
    events = kept.control("audit")
    assert [event["text"] for event in events if event["kind"] == "refused: invalid_api_key"] == [
        "from 127.0.0.1"
    ]


def test_who_shows_no_key_is_one_account_and_nobody_s_key(kept: Helexa) -> None:
    before, good = spent(kept, "anonymous"), spent(kept, "good")
    headers = {"x-helexa-account-id": "lab", "x-helexa-key-id": "good"}
    body = {"model": "said", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(3):
        assert call("POST", kept.url() + "/v1/chat/completions", body, headers)[0] == 200
    assert spent(kept, "anonymous")["requests"] == before["requests"] + 3
    assert spent(kept, "good") == good


def test_a_key_uses_the_models_that_it_may_and_no_other(kept: Helexa) -> None:
    status, _, body = ask(kept, "picky")
    assert (status, body["error"]["code"]) == (403, "forbidden")
    assert spent(kept, "picky")["requests"] == 0
    told = kept.control("audit", key="picky")
    assert [(event["kind"], event["count"]) for event in told] == [("refused: forbidden", 1)]


def test_keys_of_the_configuration_come_and_go_while_it_serves(kept: Helexa, folder: Path) -> None:
    file = folder / "helexa.toml"
    added = CONFIG + '[[accounts.keys]]\nkey = "sk-late-0123456789abcdef"\naccount_id = "late"\n'
    file.write_text(added)
    assert kept.ctl("reload").returncode == 0
    assert ask(kept, "late")[0] == 200
    file.write_text(CONFIG)
    kept.process.send_signal(signal.SIGHUP)
    while ask(kept, "late")[0] == 200:
        pass
    assert ask(kept, "late")[0] == 401
    told = kept.control("audit", key="late")
    assert [event["kind"] for event in told] == ["key removed", "key created"]
    headers = {"x-api-key": "sk-picky-0123456789abcdef"}
    assert call("GET", kept.url() + "/v1/models", None, headers)[2]["data"] == []
    assert call("GET", kept.url() + "/v1/models/said", None, headers)[0] == 403
    body = {"model": "said", "messages": [{"role": "user", "content": "hi"}]}
    assert call("POST", kept.url() + "/v1/messages/count_tokens", body, headers)[0] == 403


# -- how much ------------------------------------------------------------------------------------------


def test_a_request_larger_than_a_balance_is_refused_before_it_is_sent_anywhere(
    kept: Helexa,
) -> None:
    before = metric(kept, 'helexa_requests_total{model="said",node="local",outcome="stop"')
    status, headers, body = ask(kept, "balance", max_tokens=1000)
    assert (status, body["error"]["code"]) == (429, "insufficient_quota")
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers
    assert headers["x-ratelimit-limit-tokens"] == "300"
    assert body["error"]["remaining_tokens"] == int(headers["x-ratelimit-remaining-tokens"])
    after = metric(kept, 'helexa_requests_total{model="said",node="local",outcome="stop"')
    assert after == before


def test_a_window_that_renews_says_when(kept: Helexa) -> None:
    status, headers, body = ask(kept, "rolling", max_tokens=1000)
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["retry-after"]) <= 3600


def test_what_an_agent_asks_for_without_end_ends_at_its_cap(kept: Helexa) -> None:
    answers = [ask(kept, "balance", max_tokens=30) for _ in range(20)]
    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) == {200, 429}
    assert {body["error"]["code"] for status, _, body in answers if status == 429} == {
        "insufficient_quota"
    }
    used = sum(body["usage"]["total_tokens"] for status, _, body in answers if status == 200)
    row = spent(kept, "balance")
    assert (row["requests"], row["tokens"]) == (statuses[200], used)
    assert used <= 300
    assert metric(kept, 'helexa_spend_tokens_total{account="acct",key="balance"') == used


BURSTS = int(os.environ.get("HELEXA_TEST_BURSTS", "5"))  # `tools/soak accounts` runs many


@pytest.mark.parametrize("number", range(BURSTS))
def test_a_burst_on_one_key_takes_all_of_its_cap_and_no_token_more(
    kept: Helexa, number: int
) -> None:
    done = burst(kept, number)
    assert not done.problems
    assert done.answered
    assert done.refused


# -- whose turn it is ----------------------------------------------------------------------------------

LONG = "word " * 300  # more tokens than a round gives to a key of weight 1


def queue_up(process: Helexa, crowd: Mapping[str, int]) -> list[str]:
    """So many requests of each key wait for the one slot; the keys in the order in which they were served."""
    num_requests = sum(crowd.values())
    with ThreadPoolExecutor(num_requests + 1) as pool:
        first = pool.submit(ask, process, None, "slowly")
        wait_for_line(process, 0)
        asking = [
            pool.submit(ask, process, key, LONG, max_tokens=10)
            for key, number in crowd.items()
            for _ in range(number)
        ]
        wait_for_line(process, num_requests)
        assert {one.result()[0] for one in (first, *asking)} == {200}
    newest_first = process.control("requests", limit=num_requests)
    return [record["key"] for record in reversed(newest_first)]


def wait_for_line(process: Helexa, length: int) -> None:
    """Until the slot is taken and so many wait."""
    for _ in range(1000):
        (model,) = call("GET", process.url("node") + "/health")[2]["models"]
        if model["in_flight"] and model["queue_depth"] == length:
            return
        select_nothing(0.01)
    raise AssertionError("they never stood in line")


def test_who_floods_keeps_nobody_waiting_but_himself(kept: Helexa) -> None:
    order = queue_up(kept, {"good": 20, "light": 2})
    assert max(place for place, key in enumerate(order) if key == "light") <= 4


def test_a_key_of_three_times_the_weight_is_served_three_times_as_often(kept: Helexa) -> None:
    order = queue_up(kept, {"light": 24, "heavy": 24})
    assert 11 <= order[:16].count("heavy") <= 13


def test_batch_waits_for_interactive_and_is_not_forgotten(kept: Helexa) -> None:
    order = queue_up(kept, {"batch": 3, "light": 12, "heavy": 12})
    first = order.index("batch")
    assert 7 <= first <= 8  # seven times its tokens, and one request more


# -- keys of the store -----------------------------------------------------------------------------------


def test_a_key_is_made_used_shown_and_ended(kept: Helexa) -> None:
    made = kept.ctl("keys", "create", "--account", "home", "--cap", "500", "--note", "for tests")
    secret = made.stdout.strip()
    assert secret.startswith("hx_")
    body = {"model": "said", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    url, headers = kept.url() + "/v1/messages", {"x-api-key": secret, "anthropic-version": "x"}
    status, told, _ = call("POST", url, body, headers)
    assert status == 200
    assert told["anthropic-ratelimit-tokens-limit"] == "500"
    assert "in force" in kept.ctl("keys", "list").stdout
    shown = json.loads(kept.ctl("keys", "show", "home", "--json").stdout)
    assert (shown["budgets"][0]["cap"], shown["note"]) == (500, "for tests")
    assert kept.ctl("keys", "revoke", "home").returncode == 0
    status, _, refused = call("POST", url, body, headers)
    assert (status, refused["error"]["type"]) == (401, "authentication_error")
    assert "key revoked" in kept.ctl("audit", "--key", "home").stdout
    assert "home,home,1" in kept.ctl("spend", "--csv").stdout


# -- the end of a process ----------------------------------------------------------------------------------


UNBOUNDED_ANYBODY = (
    "keys have budgets, and who leaves the key out has none: set accounts.require_auth, or a limit for "
    "the account anonymous"
)
KILLS = int(os.environ.get("HELEXA_TEST_KILLS", "5"))


@pytest.fixture(scope="module")
def mortal(folder: Path, store_dir: Path) -> Iterator[Helexa]:
    """It is killed and started again; each time it is up afterwards."""
    with started(folder, store_dir, folder / "mortal") as process:
        yield process


@pytest.fixture(scope="module")
def endless_key(mortal: Helexa) -> str:
    return make_key(mortal, "killed", 10**9)


@pytest.mark.parametrize("number", range(KILLS))
def test_after_a_kill_the_ledger_has_what_clients_received_but_for_a_second(
    mortal: Helexa, endless_key: str, number: int
) -> None:
    done = kill(mortal, "killed", endless_key, random.Random(number))
    assert not done.problems
    assert done.received


def test_after_a_kill_a_backup_brings_everything_back(
    mortal: Helexa, folder: Path, tmp_path: Path
) -> None:
    secret = mortal.ctl("keys", "create", "--account", "home").stdout.strip()
    assert ask(mortal, "good", max_tokens=10)[0] == 200
    backup = tmp_path / "backup.tar"
    assert mortal.ctl("backup", str(backup)).returncode == 0
    before = spent(mortal, "good")
    assert ask(mortal, "good", max_tokens=10)[0] == 200
    assert spent(mortal, "good") != before
    assert mortal.events(UNBOUNDED_ANYBODY)
    mortal.kill()
    for file in mortal.state_dir.glob("*.sqlite*"):
        file.unlink()
    (mortal.state_dir / "keys.json").unlink()
    done = mortal.helexa("restore", str(backup), "--config", str(folder / "helexa.toml"))
    assert done.returncode == 0, done.stderr
    mortal.restart()
    assert spent(mortal, "good") == before
    url = mortal.url() + "/v1/models"
    assert call("GET", url, None, {"x-api-key": secret})[0] == 200
    refused = mortal.helexa("restore", str(backup))
    assert refused.returncode == 6
    assert mortal.stop(signal.SIGTERM) == 0


def test_no_secret_is_in_any_log_metric_error_or_command_line(kept: Helexa) -> None:
    made = kept.ctl("keys", "create", "--account", "secretive").stdout.strip()
    told = [str(ask(kept, "wrong"))]
    call("GET", kept.url() + "/v1/models", None, {"x-api-key": made})
    with urllib.request.urlopen(kept.url("metrics") + "/metrics") as response:
        told.append(response.read().decode())
    told.append(kept.log.read_text())
    told.append(Path(f"/proc/{kept.process.pid}/cmdline").read_text())
    told += [
        kept.ctl(*verb).stdout for verb in (("keys", "list"), ("audit",), ("logs",), ("status",))
    ]
    kept.control("audit")
    for file in kept.state_dir.glob("*"):
        if file.is_file():
            told.append(file.read_bytes().decode("latin-1"))
    for text in told:
        for secret in (*SECRETS, made, "sk-wrong-0123456789abcdef"):
            assert secret not in text
