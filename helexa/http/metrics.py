"""The metrics listener: what Prometheus scrapes."""

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from quart import Response
from quart_trio import QuartTrio

from helexa.actors.node import Node
from helexa.actors.place import NodeStatus
from helexa.config.schema import Limits
from helexa.http.application import configure
from helexa.metrics import Metrics

MIB = 2**20


def metrics_app(metrics: Metrics, node: Node | None, limits: Limits) -> QuartTrio:
    app = QuartTrio("helexa.metrics")
    configure(app, limits)

    @app.get("/metrics")
    async def scrape() -> Response:
        if node is not None:
            set_gauges(metrics, node.name, await node.status())
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    return app


def set_gauges(metrics: Metrics, node: str, status: NodeStatus) -> None:
    """What is true now, from the node's snapshot; models that are gone leave no series behind."""
    for gauge in metrics.of_models:
        gauge.clear()
    for model in status.models:
        where = (metrics.label(model.entry.id), node)
        metrics.in_flight.labels(*where).inc(model.in_flight)
        metrics.queued.labels(*where).inc(model.queue_depth)
        metrics.slots.labels(*where).inc(model.occupancy.max_in_flight)
        metrics.waiting_keys.labels(*where).inc(model.occupancy.waiting_keys)
        metrics.expected_wait.labels(*where).inc(model.occupancy.expected_wait_seconds)
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
