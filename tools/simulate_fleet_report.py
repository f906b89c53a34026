"""What came of a simulated scene, as a row of a table."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

from simulate_fleet_node import SimNode
from simulate_fleet_traffic import Outcome, Scene

HEADER = """\
| policy | requests | warm | prompt kept | swaps per hour | wait p50 | wait p99 | unfairness | failed |
|---|---|---|---|---|---|---|---|---|"""


def report(name: str, scene: Scene, nodes: Sequence[SimNode]) -> str:
    """`unfairness` is the Gini coefficient of the models' mean waits: 0 where all wait alike."""
    served = [outcome for outcome in scene.outcomes if outcome.how == "ok"]
    waits = sorted(outcome.wait for outcome in served)
    later = [outcome for outcome in served if outcome.ask.turn]
    num_failed = len(scene.outcomes) - len(served)
    swaps = sum(node.num_unloads for node in nodes) * 3600 / scene.seconds
    cells = [
        name,
        str(len(scene.outcomes)),
        percent(sum(outcome.ask.was_warm for outcome in served), len(served)),
        percent(sum(outcome.ask.prefix_was_kept for outcome in later), len(later)),
        f"{swaps:.0f}",
        f"{quantile(waits, 0.5):.2f} s",
        f"{quantile(waits, 0.99):.1f} s",
        f"{gini(mean_waits(served)):.2f}",
        percent(num_failed, len(scene.outcomes)),
    ]
    return f"| {' | '.join(cells)} |"


def mean_waits(served: Sequence[Outcome]) -> list[float]:
    waits: dict[str, list[float]] = defaultdict(list)
    for outcome in served:
        waits[outcome.ask.model].append(outcome.wait)
    return [mean(each) for each in waits.values()]


def gini(values: Sequence[float]) -> float:
    ordered, total = sorted(values), sum(values)
    if not total:
        return 0.0
    weighted = sum(rank * value for rank, value in enumerate(ordered, 1))
    return 2 * weighted / (len(ordered) * total) - (len(ordered) + 1) / len(ordered)


def quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
