#!/usr/bin/env python3
"""What it costs to watch a large fleet: CPU per look at a node over real HTTP, and per answer of /v1/models.

The poller, the fleet, its ports and their HTTP are the real ones; the nodes are paths of one process beside,
which answers with what a node of ours tells: two devices, four models, twenty names in its store.

    tools/bench_polling.py [--nodes 1000] [--models 500] [--seconds 40]
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import orjson
import trio
from attrs import define, field

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helexa.actors.fleet import Fleet
from helexa.actors.poller import Poller
from helexa.config.schema import Config, Node, RemoteNode
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.fleet.feasible import feasible_on
from helexa.fleet.listing import compose
from helexa.fleet.view import NodeView
from helexa.metrics import Metrics
from helexa.nodes.client import Client
from helexa.nodes.remote import RemotePort
from helexa.shelf import Shelf
from helexa.wire.models import write_list

LOADED = 4  # models on each node
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
NUM_LISTS = 40


# -- the nodes ---------------------------------------------------------------------------------------


def told(number: int, models: int) -> dict[str, bytes]:
    """What one node answers, by the path below its own."""
    names = [name_of((number * LOADED + each) % models) for each in range(LOADED)]
    devices = [{"index": i, "name": "NVIDIA GeForce RTX 4090"} for i in range(2)]
    answers = {
        "/discovery": {
            **{"hostname": f"host{number}", "os": "Debian GNU/Linux 12", "kernel": "6.1.0"},
            **{"driver_version": "575.64", "cuda_version": "12.9", "max_prompt_tokens": 0},
            "harnesses": ["torch", "script"],
            "devices": [
                d | {"vram_total_mb": 24_564, "compute_capability": "8.9"} for d in devices
            ],
            "stored": [f"hf--org--model-{each}-0123456789" for each in range(20)],
        },
        "/health": {
            **{"status": "ok", "uptime_secs": 10_000},
            "activation": {"state": "ready", "loading": [], "pending": [], "failed": []},
            "devices": [
                {"index": i, "vram_used_mb": 12_000, "vram_free_mb": 12_564, "poisoned": False}
                | {"utilization_percent": 40, "temperature_c": 61, "power_w": 220.5}
                for i in range(2)
            ],
            "models": [
                {"id": name, "in_flight": 2, "queue_depth": 0, "width": 8, "waiting_keys": 0}
                | {"expected_wait_seconds": 0.0, "spare_mb": 800, "service_seconds": 3.217}
                | {"done_bytes": 0, "total_bytes": 0}
                for name in names
            ],
        },
        "/models": [
            {"id": name, "harness": "torch", "status": "loaded", "devices": [i % 2]}
            | {"vram_used_mb": 6000, "capabilities": ["text"], "tool_call": True}
            | {"reasoning": False, "limit_estimated": False}
            | {"limit": {"context": 32_768, "input": 24_576, "output": 8192}}
            for i, name in enumerate(names)
        ],
        "/version": {
            **{"package_version": "0.1.0", "git_sha": "0123456789ab", "dirty": False},
            **{"python_version": "3.11", "torch_version": "2.8.0", "features": ["cuda"]},
        },
    }
    return {path: orjson.dumps(answer) for path, answer in answers.items()}


def name_of(model: int) -> str:
    return f"org/model-{model}"


async def serve(nodes: int, models: int) -> None:
    answers = {f"/n{i}{path}": body for i in range(nodes) for path, body in told(i, models).items()}

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = answers[head.split(b" ", 2)[1].decode()]
                writer.write(HEAD % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving(nodes: int, models: int) -> Iterator[int]:
    """The port of a process that is all nodes."""
    command = [sys.executable, __file__, "--serve", "--nodes", str(nodes), "--models", str(models)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


# -- the gateway -------------------------------------------------------------------------------------


@define(eq=False)
class Counted:
    """The fleet, and how often it was told of a node."""

    fleet: Fleet
    num_nodes: int
    num_looks: int = 0
    all_seen: trio.Event = field(factory=trio.Event)

    def seen(self, view: NodeView) -> None:
        self.num_looks += 1
        self.fleet.seen(view)
        if self.num_looks == self.num_nodes:
            self.all_seen.set()

    def lost(self, node: str, why: str) -> None:
        raise SystemExit(f"{node}: {why}")


@asynccontextmanager
async def watching(port: int, nodes: int, catalogue: Catalogue) -> AsyncGenerator[Counted, None]:
    """A gateway's fleet that follows so many nodes, once it has seen each."""
    remote = [RemoteNode(f"n{i}", f"http://127.0.0.1:{port}/n{i}") for i in range(nodes)]
    config = Config(node=Node(enabled=False), nodes=tuple(remote))
    with ExitStack() as clients:
        ports = {n.name: RemotePort(n, clients.enter_context(Client(n))) for n in remote}
        fleet = Fleet(config, Shelf(catalogue, lambda: catalogue), ports, Metrics())
        counted = Counted(fleet, nodes)
        poller = Poller(list(ports.values()), counted, config.fleet.poll_seconds)
        async with trio.open_nursery() as nursery:
            await nursery.start(fleet.run)
            await nursery.start(poller.run)
            await counted.all_seen.wait()
            yield counted
            nursery.cancel_scope.cancel()


async def measure(port: int, nodes: int, models: int, seconds: float) -> None:
    catalogue = Catalogue(tuple(CatalogueModel(name_of(i), vram_mb=6000) for i in range(models)))
    async with watching(port, nodes, catalogue) as counted:
        looks, cpu, began = counted.num_looks, time.process_time(), time.monotonic()
        await trio.sleep(seconds)
        looks, cpu = counted.num_looks - looks, time.process_time() - cpu
        elapsed = time.monotonic() - began
        views = counted.fleet.views
        assert all(len(view.models) == LOADED for view in views)
        lists = time.process_time()
        for _ in range(NUM_LISTS):
            size = len(listed(catalogue, views))
        lists = (time.process_time() - lists) / NUM_LISTS
    print(f"| {nodes} nodes | CPU | of one core |\n|---|---|---|")
    print(f"| a look at one node | {1000 * cpu / looks:.2f} ms | |")
    print(f"| all looks, {looks / elapsed:.1f} per second | | {100 * cpu / elapsed:.1f} % |")
    text = f"`/v1/models`, {models} models, {size / 1000:.0f} kB, once a second"
    print(f"| {text} | {1000 * lists:.1f} ms | {100 * lists:.1f} % |")


def listed(catalogue: Catalogue, views: tuple[NodeView, ...]) -> bytes:
    """An answer of /v1/models at a gateway without a node of its own."""
    entries = compose(catalogue, views, {}, feasible_on(catalogue.models, views))
    return orjson.dumps(write_list(entries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.nodes, args.models))
        return
    with serving(args.nodes, args.models) as port:
        trio.run(measure, port, args.nodes, args.models, args.seconds)


if __name__ == "__main__":
    main()
