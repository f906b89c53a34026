"""`helexa-ctl` as a person runs it, against a running server."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from control_fakes import FakeDaemon

from helexa import ctl, logs
from helexa.control.server import Verb, serve
from helexa.control.verbs import logs_verb, requests_verb, why_verb
from helexa.logs import Ring
from helexa.records import Record, Records

Ctl = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]

HEAVY = {"trio", "attrs", "attr", "cattrs", "orjson", "hypercorn", "quart", "torch", "logging"}


def run(args: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "helexa.ctl", *args]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=60
    )


@pytest.fixture
async def helexa_ctl(nursery: trio.Nursery, daemon: FakeDaemon, tmp_path: Path) -> Ctl:
    """Runs `helexa-ctl` with its arguments against a server with every verb."""
    records, ring = Records(tmp_path), Ring()
    records.add(
        Record(
            "req_1", 0.0, "ada", "laptop", "demo", "chat", False, 200, 1.0, decisions=((0.1, "x"),)
        )
    )
    ring.add(
        {"time": "2025-01-01T00:00:00+00:00", "level": "info", "logger": "helexa.x", "event": "hi"}
    )
    verbs = daemon.verbs() | {
        "models": Verb("models", False, daemon.models),
        "drain": Verb("drain", True, daemon.drain),
        "logs": logs_verb(ring),
        "requests": requests_verb(records),
        "why": why_verb(records),
    }
    path = tmp_path / "helexa.sock"
    await nursery.start(serve, path, "", verbs)

    async def helexa_ctl(*args: str) -> subprocess.CompletedProcess[str]:
        environ = {"HELEXA_CONTROL__SOCKET": str(path), "PYTHONIOENCODING": "utf-8"}
        return await trio.to_thread.run_sync(partial(run, list(args), environ))

    return helexa_ctl


@pytest.mark.parametrize(
    ("args", "out"),
    [
        (["status"], "helexa 0.1.0\n"),
        (["status", "--json"], '{"version": "0.1.0", "args": false}\n'),
        (["load", "demo"], "demo is loaded\n"),
        (["why", "req_1"], "      0.100 s  x\n"),
        (["logs"], " info    x: hi\n"),
        (["drain"], "finishing 1 request\nhelexa has stopped\n"),
    ],
)
async def test_a_verb_shows_what_the_daemon_tells(
    helexa_ctl: Ctl, args: list[str], out: str
) -> None:
    done = await helexa_ctl(*args)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(out)


async def test_tables_and_their_json(helexa_ctl: Ctl) -> None:
    assert "demo   loaded" in (await helexa_ctl("models")).stdout
    assert json.loads((await helexa_ctl("models", "--json")).stdout)["id"] == "demo"
    assert "req_1" in (await helexa_ctl("requests", "--slow", "--key", "ada")).stdout
    assert (await helexa_ctl("requests", "--failed")).stdout == "no requests\n"


@pytest.mark.parametrize(
    ("args", "err", "code"),
    [
        (["load", "ghost"], "no such model: ghost\n", 1),
        (["reload"], "one mistake\nanother\n", 1),
        (["why", "req_9"], "recorded when it ends\n", 1),
        (["unload", "demo"], "but broken, count, drain", 1),
        (["fly"], "invalid choice: 'fly'", 2),
        (["capture", "k", "--for", "soon"], "'soon' is no time such as 90s, 10m or 2h", 2),
        ([], "required: VERB", 2),
    ],
)
async def test_a_refusal_is_told_on_standard_error_with_a_code(
    helexa_ctl: Ctl, args: list[str], err: str, code: int
) -> None:
    done = await helexa_ctl(*args)
    assert (done.returncode, done.stdout) == (code, "")
    assert err in done.stderr


def test_without_a_daemon_it_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    done = run(["status", "--socket", f"{tmp_path}/none.sock"], {})
    assert done.returncode == 3
    assert f"{tmp_path}/none.sock: not there" in done.stderr
    assert "helexa serve" in done.stderr


def test_a_daemon_that_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctl, "ANSWER_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        assert ctl.main(["status", "--socket", str(tmp_path / "s")]) == 1
    assert "has not answered" in capsys.readouterr().err


def test_a_socket_that_is_not_for_us_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(path: Path) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("helexa.control.client.connect_one", denied)
    assert ctl.main(["--socket", "/run/x.sock", "status"]) == 3
    assert "/run/x.sock: permission denied; use sudo, or join" in capsys.readouterr().err


def test_it_imports_nothing_heavy() -> None:
    told = "import sys, helexa.ctl; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "words", ["--json status", "status --json", "keys --json list", "nodes --json test gpu2"]
)
def test_json_can_be_asked_for_before_or_after_a_verb(words: str) -> None:
    assert ctl.parser().parse_args(words.split()).json
    assert not ctl.parser().parse_args(["status"]).json


def test_following_and_watching_can_be_asked_for() -> None:
    parse = ctl.parser().parse_args
    assert parse(["logs", "-f", "-n", "5"]).follow
    assert parse(["status", "--watch"]).watch
    assert parse(["capture", "k"]).seconds == 600
    assert [
        parse(["capture", "k", "--for", t]).seconds for t in ("90s", "10m", "2h", "1.5d", "0")
    ] == [
        90,
        600,
        7_200,
        129_600,
        0,
    ]
    assert parse(["logs"]).number <= logs.RING_LINES
