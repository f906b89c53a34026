"""The real coding agents, from npm at pinned versions, each in a home of its own that calls nobody."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from helexa.clients.command import CLIENTS
from helexa.clients.listing import fetch_models
from helexa.clients.offer import choose, read_models
from helexa.store.layout import locked

PACKAGES = {
    "opencode-ai": "1.18.33",
    "@anthropic-ai/claude-code": "2.1.330",
    "@openai/codex": "0.169.0",
}
INSTALL_SECONDS, RUN_SECONDS = 600, 120


@frozen
class Done:
    """How a run of an agent ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """What it told as JSON, one value per line."""
        return [json.loads(line) for line in self.out.splitlines() if line[:1] == "{"]


@frozen
class Agent:
    """`name` is client-config's; `reads` is the call by which it reads a file; `answer` is its last word."""

    name: str
    command: Callable[[str, str], Sequence[str]]
    reads: Callable[[Path], Any]
    answer: Callable[[Done], str]

    def __str__(self) -> str:
        return self.name


def claude_code_command(prompt: str, model: str) -> Sequence[str]:
    options = ("--output-format", "json", "--allowedTools", "Read")
    return ("claude", "-p", prompt, "--model", model, *options)


def codex_command(prompt: str, model: str) -> Sequence[str]:
    """Without plugins, apps and the like, which it looks for in the network."""
    settings = (
        "features.plugins=false",
        "features.apps=false",
        "analytics.enabled=false",
        "check_for_update_on_startup=false",
    )
    off = [word for setting in settings for word in ("-c", setting)]
    options = ("--skip-git-repo-check", "-s", "danger-full-access", "--json")
    return ("codex", "exec", *off, *options, "-m", model, prompt)


def opencode_command(prompt: str, model: str) -> Sequence[str]:
    """The variant makes it ask for reasoning."""
    options = ("--format", "json", "--variant", "high")
    return ("opencode", "run", *options, "-m", f"helexa/{model}", prompt)


def codex_answer(done: Done) -> str:
    items = [line["item"] for line in done.lines if line["type"] == "item.completed"]
    return str([item["text"] for item in items if item["type"] == "agent_message"][-1])


def opencode_answer(done: Done) -> str:
    return str([line["part"]["text"] for line in done.lines if line["type"] == "text"][-1])


CLAUDE_CODE = Agent(
    "claude-code",
    claude_code_command,
    lambda path: {"name": "Read", "arguments": {"file_path": str(path)}},
    lambda done: str(json.loads(done.out)["result"]),
)
CODEX = Agent(
    "codex",
    codex_command,
    lambda path: {"name": "exec_command", "arguments": {"cmd": f"cat {path}"}},
    codex_answer,
)
OPENCODE = Agent(
    "opencode",
    opencode_command,
    lambda path: {"name": "read", "arguments": {"filePath": str(path)}},
    opencode_answer,
)
AGENTS = (CLAUDE_CODE, CODEX, OPENCODE)


def install(cache: Path) -> Path:
    """The directory of the agents' commands."""
    return install_packages(cache, PACKAGES)


def install_packages(cache: Path, packages: Mapping[str, str]) -> Path:
    """The directory of the packages' commands.  Installed once per machine and set of versions."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is missing, so that the clients cannot be installed")
    home = cache / "-".join(["clients", *packages.values()])
    commands = home / "node_modules" / ".bin"
    with locked(cache, home.name):  # of several workers the first installs them
        if not (home / "complete").exists():
            install_into(home, npm, packages)
    return commands


def install_into(home: Path, npm: str, packages: Mapping[str, str]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "package.json").write_text(json.dumps({"private": True}))
    wanted = [f"{name}@{version}" for name, version in packages.items()]
    options = ("--fetch-retries=5", "--no-audit", "--no-fund", "--loglevel=error")
    subprocess.run(
        [npm, "install", *options, *wanted],
        cwd=home,
        check=True,
        timeout=INSTALL_SECONDS,
    )
    (home / "complete").touch()


class Home:
    """An agent's home, with nothing of this user's environment; it works in `work`."""

    def __init__(self, commands: Path, path: Path, work: Path) -> None:
        self._commands = commands
        self._path = path
        self._work = work
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(path),
            "XDG_CONFIG_HOME": str(path / ".config"),
            "XDG_DATA_HOME": str(path / ".local" / "share"),
            "XDG_STATE_HOME": str(path / ".local" / "state"),
            "XDG_CACHE_HOME": str(path / ".cache"),
            "HELEXA_API_KEY": "any",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "OPENCODE_PURE": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "NO_COLOR": "1",
        }

    def configure(self, agent: Agent, url: str, model: str = "scripted") -> None:
        """What a user would do: put every file where its client looks for it."""
        models = read_models(fetch_models(url))
        for file in CLIENTS[agent.name](choose(url, models, model, None)).files:
            there = Path(file.path.replace("~", str(self._path)))
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text(file.text)

    def ask(self, agent: Agent, prompt: str, model: str = "scripted") -> Done:
        return self.run(agent.command(prompt, model))

    def run(self, command: Sequence[str]) -> Done:
        with self.start(command) as process:
            return done(process)

    @contextmanager
    def start(self, command: Sequence[str]) -> "Iterator[subprocess.Popen[str]]":
        """The agent while it runs; at the end nothing of it is left, however it went."""
        process = subprocess.Popen(
            [str(self._commands / command[0]), *command[1:]],
            cwd=self._work,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                kill(process)


def done(process: "subprocess.Popen[str]") -> Done:
    out, err = process.communicate(timeout=RUN_SECONDS)
    return Done(process.returncode, out, err)


def kill(process: "subprocess.Popen[str]") -> None:
    """The agent and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
