"""A fleet of real processes on this machine: nodes with script models, and a gateway before them."""

import json
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import define, field
from process import SERVE, Helexa, call, select_nothing

TOKEN = "between-us"
PATIENCE_SECONDS = 30.0

# Each fills more than half of a node, so that no two of them fit one together.
CATALOGUE = """
[[models]]
id = "ant"
harness = "script"
script = "quick.toml"
vram_mb = 2000

[[models]]
id = "bee"
harness = "script"
script = "quick.toml"
vram_mb = 2000

[[models]]
id = "sloth"
harness = "script"
script = "late.toml"
vram_mb = 2000
"""
RULES = """
[[rules]]
when = "slowly"
say = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
tokens_per_second = 8

[[rules]]
say = "At your service."
"""
NODE_MB = "4000"
NO_OTHERS: Mapping[str, int] = MappingProxyType({})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@define(eq=False)
class Fleet:
    """`nodes` by name.  Every one has the same catalogue and its own state."""

    folder: Path
    store_dir: Path
    ports: dict[str, int]
    nodes: dict[str, Helexa] = field(factory=dict)
    gateway: Helexa = field(init=False)
    _loads_before: Counter[str] = field(factory=Counter)

    def start_node(self, name: str) -> Helexa:
        options = {
            "HELEXA_GATEWAY__ENABLED": "false",
            "HELEXA_NODE__NAME": name,
            "HELEXA_NODE__LISTEN": f"127.0.0.1:{self.ports[name]}",
            "HELEXA_NODE__TOKEN": TOKEN,
            "HELEXA_NODE__MEMORY_MB": NODE_MB,
            "HELEXA_SERVER__DRAIN_SECONDS": "20",
            "HELEXA_MODELS__CATALOGUE": str(self.folder / "models.toml"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.nodes[name] = Helexa(self.folder / name, self.store_dir, options)
        return self.nodes[name]

    def start_gateway(self, token: str = TOKEN) -> Helexa:
        file = self.folder / "gateway.toml"
        file.write_text(
            "[fleet]\npoll_seconds = 0.3\nload_wait_secs = 60\n\n[eviction]\nturn_seconds = 2\n"
            + "".join(
                f'\n[[nodes]]\nname = "{name}"\nendpoint = "http://127.0.0.1:{port}"\n'
                f'token = "{token}"\n'
                for name, port in self.ports.items()
            )
        )
        options = {
            "HELEXA_NODE__ENABLED": "false",
            "HELEXA_GATEWAY__LISTEN": f"127.0.0.1:{self.gateway_port}",
            "HELEXA_MODELS__CATALOGUE": str(self.folder / "models.toml"),
        }
        command = (*SERVE, "--config", str(file))
        self.gateway = Helexa(self.folder / "gateway", self.store_dir, options, command)
        return self.gateway

    gateway_port: int = field(factory=free_port)

    # -- asking --------------------------------------------------------------------------------------

    def ask(self, model: str, text: str = "Hello.") -> tuple[int, dict[str, str], Any]:
        return call("POST", f"{self.url}/v1/chat/completions", body(model, text))

    def stream(self, model: str, text: str = "slowly") -> "Stream":
        data = json.dumps({**body(model, text), "stream": True}).encode()
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            data=data,
            headers={"content-type": "application/json"},
        )
        return Stream(urllib.request.urlopen(request, timeout=PATIENCE_SECONDS))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    # -- looking -------------------------------------------------------------------------------------

    def views(self) -> dict[str, dict[str, Any]]:
        return {view["name"]: view for view in self.gateway.status["nodes"]}

    def wait_until_up(self, *names: str) -> None:
        until(lambda: all(self.views().get(name, {}).get("up") for name in names))

    def wait_until_down(self, name: str) -> None:
        until(lambda: not self.views()[name]["up"])

    def where(self, model: str) -> list[str]:
        """The nodes that have it loaded, as they say themselves."""
        return [
            name
            for name, node in self.nodes.items()
            if node.process.poll() is None
            for told in node.status["models"]
            if told["id"] == model and told["status"] == "loaded"
        ]

    def empty(self) -> None:
        """No model is loaded any more, and the gateway has seen it; loads are counted from here."""
        for node in self.nodes.values():
            for model in node.status["models"]:
                node.control("unload", model=model["id"])
        until(lambda: not any(view["models"] for view in self.views().values()))
        self._loads_before = self._loads()

    def loads_of(self, model: str) -> int:
        return self._loads()[model] - self._loads_before[model]

    def _loads(self) -> Counter[str]:
        nodes = self.nodes.values()
        return Counter(line["model"] for node in nodes for line in node.events("model loaded"))

    def wait_for_rest(self) -> None:
        for process in (self.gateway, *self.nodes.values()):
            if process.process.poll() is None:
                process.wait_for_rest()


@define(eq=False)
class Stream:
    """An answer as it comes."""

    response: Any
    said: list[str] = field(factory=list)
    error: Any = None
    is_done: bool = False

    def read(self, pieces: int = 10**6) -> "Stream":
        """Up to so many pieces of text, or to the end."""
        for line in self.response:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                self.is_done = True
                return self
            chunk = json.loads(data)
            if "error" in chunk:
                self.error = chunk["error"]
                continue
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    self.said.append(text)
                    pieces -= 1
            if pieces <= 0:
                return self
        return self


def body(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        select_nothing(0.05)


@contextmanager
def fleet_of(
    folder: Path, store_dir: Path, names: Sequence[str], others: Mapping[str, int] = NO_OTHERS
) -> Iterator[Fleet]:
    """`others` are ports of nodes that are no processes of ours."""
    (folder / "models.toml").write_text(CATALOGUE)
    (folder / "quick.toml").write_text(RULES)
    (folder / "late.toml").write_text("load_seconds = 3\n" + RULES)
    fleet = Fleet(folder, store_dir, {name: free_port() for name in names} | {**others})
    with ExitStack() as stack:
        for name in names:
            fleet.start_node(name)
        fleet.start_gateway()
        stack.callback(kill_all, fleet)
        for process in (*fleet.nodes.values(), fleet.gateway):
            process.wait_ready()
        fleet.wait_until_up(*names)
        yield fleet


def kill_all(fleet: Fleet) -> None:
    for process in (fleet.gateway, *fleet.nodes.values()):
        if process.process.poll() is None:
            process.kill()


@contextmanager
def beside(number: int) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(number) as pool:
        yield pool


def results(futures: Sequence["Future[Any]"]) -> list[Any]:
    return [future.result(timeout=PATIENCE_SECONDS) for future in futures]
