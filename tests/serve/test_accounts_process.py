"""Keys and budgets through HTTP, against a real process whose model says what its rules tell."""

import json
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from process import Helexa, call, helexa

RULES = """
[[rules]]
when = "slowly"
say = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
tokens_per_second = 20

[[rules]]
say = "Hello there, friend."
"""
CATALOGUE = """
[[models]]
id = "said"
harness = "script"
script = "rules.toml"
vram_mb = 100
cost = { input = 1.0, output = 2.0 }
"""
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
key = "sk-crowd-0123456789abcdef"
account_id = "acct"
key_id = "crowd"
hard_cap = 2000
[[accounts.keys]]
key = "sk-picky-0123456789abcdef"
account_id = "lab"
key_id = "picky"
allowed_models = ["another"]
"""
SECRETS = [line.split('"')[1] for line in CONFIG.splitlines() if line.startswith("key = ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "models.toml").write_text(CATALOGUE)
    (folder / "rules.toml").write_text(RULES)
    (folder / "helexa.toml").write_text(CONFIG)
    (folder / "helexa.toml").chmod(0o600)
    return folder


def started(folder: Path, store_dir: Path, state_dir: Path) -> Any:
    options = {
        "HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"),
        "HELEXA_MODELS__PRELOAD": '["said"]',
        "HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "400",
        "CUDA_VISIBLE_DEVICES": "",
    }
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


def test_a_crowd_on_one_key_takes_all_of_it_and_no_token_more(kept: Helexa) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(kept, "crowd", max_tokens=20), range(200)))
    assert {status for status, _, _ in answers} <= {200, 429}
    kept.wait_for_rest()
    row = spent(kept, "crowd")
    used = sum(body["usage"]["total_tokens"] for status, _, body in answers if status == 200)
    assert row["tokens"] == used <= 2000
    per_request = max(body["usage"]["prompt_tokens"] for s, _, body in answers if s == 200) + 20
    while 2000 - row["tokens"] >= per_request:  # there is room, so nobody is refused
        assert ask(kept, "crowd", max_tokens=20)[0] == 200
        row = spent(kept, "crowd")
    assert ask(kept, "crowd", max_tokens=20)[2]["error"]["code"] == "insufficient_quota"


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
    assert (shown["hard_cap"], shown["note"]) == (500, "for tests")
    assert kept.ctl("keys", "revoke", "home").returncode == 0
    status, _, refused = call("POST", url, body, headers)
    assert (status, refused["error"]["type"]) == (401, "authentication_error")
    assert "key revoked" in kept.ctl("audit", "--key", "home").stdout
    assert "home,home,1" in kept.ctl("spend", "--csv").stdout


# -- the end of a process ----------------------------------------------------------------------------------


def stream_until_killed(process: Helexa, tokens: int) -> int:
    """How many pieces of text came before the process was killed after `tokens` of them."""
    body = {
        "model": "said",
        "stream": True,
        "messages": [{"role": "user", "content": "slowly"}],
    }
    request = urllib.request.Request(
        process.url() + "/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "x-api-key": SECRETS[0]},
    )
    pieces = 0
    with urllib.request.urlopen(request, timeout=60) as response:
        while pieces < tokens:
            line = response.readline().decode()
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get(
                "content"
            ):
                pieces += 1
        process.kill()
    return pieces


def test_after_a_kill_a_backup_brings_everything_back(
    folder: Path, store_dir: Path, tmp_path: Path
) -> None:
    with started(folder, store_dir, tmp_path / "state") as process:
        secret = process.ctl("keys", "create", "--account", "home").stdout.strip()
        assert ask(process, "good", max_tokens=10)[0] == 200
        backup = tmp_path / "backup.tar"
        assert process.ctl("backup", str(backup)).returncode == 0
        before = spent(process, "good")
        pieces = stream_until_killed(process, 12)
        process.restart()
        after = spent(process, "good")
        prompt = after["prompt_tokens"] - before["prompt_tokens"]
        told = after["completion_tokens"] - before["completion_tokens"]
        assert prompt > 0
        assert abs(pieces - told) <= 21  # a second of them, and the last of the answer
        process.kill()
        for file in (tmp_path / "state").glob("*.sqlite*"):
            file.unlink()
        (tmp_path / "state" / "keys.json").unlink()
        done = process.helexa("restore", str(backup), "--config", str(folder / "helexa.toml"))
        assert done.returncode == 0, done.stderr
        process.restart()
        assert spent(process, "good") == before
        url = process.url() + "/v1/models"
        assert call("GET", url, None, {"x-api-key": secret})[0] == 200
        refused = process.helexa("restore", str(backup))
        assert refused.returncode == 6
        assert process.stop(signal.SIGTERM) == 0


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
