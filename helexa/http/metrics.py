"""The metrics listener: what Prometheus scrapes."""

from collections.abc import Callable, Iterable

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from quart import Response
from quart_trio import QuartTrio

from helexa.actors.admission import Door, Occupancy
from helexa.actors.node import Node
from helexa.actors.place import NodeStatus
from helexa.http.application import configure
from helexa.metrics import Metrics

MIB = 2**20


Doors = Callable[[], Iterable[Door]]


def metrics_app(metrics: Metrics, node: Node | None, doors: Doors) -> QuartTrio:
    """`doors` are those of models on nodes that keep no lines themselves."""
    app = QuartTrio("helexa.metrics")
    configure(app)

    @app.get("/metrics")
    async def scrape() -> Response:
        for gauge in metrics.of_models:
            gauge.clear()  # models that are gone leave no series behind
        if node is not None:
            set_gauges(metrics, node.name, await node.status())
        for model, at, occupancy in doors():
            set_load(metrics, (metrics.label(model), at), occupancy)
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    return app


def set_load(metrics: Metrics, where: tuple[str, str], occupancy: Occupancy) -> None:
    """Of one model, at its door; several that are called alike count together."""
    metrics.in_flight.labels(*where).inc(occupancy.in_flight)
    metrics.queued.labels(*where).inc(occupancy.queue_depth)
    metrics.slots.labels(*where).inc(occupancy.max_in_flight)
    metrics.waiting_keys.labels(*where).inc(occupancy.waiting_keys)
    metrics.expected_wait.labels(*where).inc(occupancy.expected_wait_seconds)


def set_gauges(metrics: Metrics, node: str, status: NodeStatus) -> None:
    """What is true now, from the node's snapshot."""
    for model in status.models:
        where = (metrics.label(model.entry.id), node)
        set_load(metrics, where, model.occupancy)
        metrics.kv_tokens.labels(*where).inc(model.pool.held_tokens)
        metrics.kv_bytes.labels(*where).inc(model.pool.held_bytes)
        metrics.kv_pool_tokens.labels(*where).inc(model.pool.tokens)
        metrics.prefix_bytes.labels(*where).inc(model.pool.cached_bytes)
        metrics.prefix_entries.labels(*where).inc(model.pool.use.entries)
    for device in status.devices:
        where = (str(device.info.index), node)
        metrics.device_total.labels(*where).set(device.info.vram_total_mb * MIB)
        metrics.device_poisoned.labels(*where).set(device.poisoned)
        if device.readings is not None:
            metrics.device_used.labels(*where).set(device.readings.vram_used_mb * MIB)
