"""How a fleet serves its traffic, simulated: the real routing, planning and turns on virtual time.

    python tools/simulate_fleet.py                              # 64 nodes, 100 models, 20 minutes
    python tools/simulate_fleet.py --nodes 1000 --models 500 --rate 120 --minutes 5 --only helexa

Prints one table: helexa beside simpler policies over the same traffic, nodes and failures.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import trio
from simulate_fleet_node import SimNode
from simulate_fleet_policies import POLICIES
from simulate_fleet_report import HEADER, report
from simulate_fleet_traffic import Scene, make_scene, run_scene
from trio.testing import MockClock


def main() -> None:
    options = parse()
    print(f"{options.nodes} nodes, {options.models} models, {options.rate:g} requests/s, ", end="")
    print(f"{options.minutes:g} minutes, seed {options.seed}\n")
    print(HEADER)
    for name in options.only or POLICIES:
        began_at = time.monotonic()
        scene = make_scene(
            options.nodes, options.models, options.rate, options.minutes, options.seed
        )
        nodes = trio.run(live, name, scene, clock=MockClock(autojump_threshold=0))
        print(report(name, scene, nodes), flush=True)
        print(f"{name}: {time.monotonic() - began_at:.0f} s of real time", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rate", type=float, default=8.0, help="requests per second")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(POLICIES))
    return parser.parse_args()


async def live(policy: str, scene: Scene) -> list[SimNode]:
    nodes = [SimNode(name, scene) for name in scene.nodes]
    async with POLICIES[policy](scene, nodes) as client:
        await run_scene(scene, nodes, client)
    return nodes


if __name__ == "__main__":
    main()
