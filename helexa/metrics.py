"""Every Prometheus metric of the process, in one registry that is made once and passed down.

Label values are catalogue ids, node names and device indexes, never what a client sent: a model that
is not in the catalogue counts as `unknown`, so that no client can make series without end.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from helexa import __version__
from helexa.fleet.pool import Counted

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5)
RATES = (1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200, 400, 800)


UNKNOWN = "unknown"


def always(model: str) -> bool:
    return True


class Metrics:
    def __init__(self, is_listed: Callable[[str], bool] = always) -> None:
        """`is_listed` tells whether an id is in the catalogue in force."""
        self._is_listed = is_listed
        self.registry = registry = CollectorRegistry()
        where = ["model", "node"]
        self.requests = Counter(
            "helexa_requests",
            "Requests by how they ended (an HTTP status, or why a stream ended).",
            [*where, "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "helexa_request_duration_seconds",
            "From the whole request to the last byte of its answer.",
            where,
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "helexa_time_to_first_token_seconds",
            "From the whole request to the first generated token.",
            where,
            buckets=SECONDS,
            registry=registry,
        )
        self.between_tokens = Histogram(
            "helexa_inter_token_latency_seconds",
            "Mean time between two tokens of one request; helexa_longest_token_gap_seconds has the stalls.",
            where,
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.longest_gap = Histogram(
            "helexa_longest_token_gap_seconds",
            "The longest silence between two tokens of one request.",
            where,
            buckets=(*TOKEN_SECONDS, 5, 10, 30),
            registry=registry,
        )
        self.rate = Histogram(
            "helexa_tokens_per_second",
            "Generated tokens per second after the first, of one request.",
            where,
            buckets=RATES,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "helexa_prompt_tokens", "Prompt tokens of served requests.", where, registry=registry
        )
        self.completion_tokens = Counter(
            "helexa_completion_tokens", "Generated tokens.", where, registry=registry
        )
        self.reasoning_tokens = Counter(
            "helexa_reasoning_tokens",
            "Generated tokens that were reasoning; helexa_completion_tokens_total counts them too.",
            where,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "helexa_queue_wait_seconds",
            "Time that admitted requests waited for admission.",
            where,
            buckets=SECONDS,
            registry=registry,
        )
        self.admissions = Counter(
            "helexa_admissions",
            "Requests at a model's door by the decision about them; `waited_too_long` was `queued` before.",
            [*where, "decision"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "helexa_requests_in_flight", "Admitted requests.", where, registry=registry
        )
        self.queued = Gauge(
            "helexa_requests_queued", "Requests that wait for admission.", where, registry=registry
        )
        self.slots = Gauge(
            "helexa_request_slots", "Sequences that may run at once.", where, registry=registry
        )
        self.waiting_keys = Gauge(
            "helexa_queue_keys", "Keys whose requests wait for admission.", where, registry=registry
        )
        self.expected_wait = Gauge(
            "helexa_queue_expected_wait_seconds",
            "What a request of a key that has none here would wait for admission, in nine of ten cases.",
            where,
            registry=registry,
        )
        self.kv_tokens = Gauge(
            "helexa_kv_cache_tokens",
            "Tokens held in the KV cache, of running sequences and of kept prefixes.",
            where,
            registry=registry,
        )
        self.kv_bytes = Gauge(
            "helexa_kv_cache_bytes", "Bytes held in the KV cache.", where, registry=registry
        )
        self.kv_pool_tokens = Gauge(
            "helexa_kv_pool_tokens",
            "Tokens that the KV cache has room for.",
            where,
            registry=registry,
        )
        self.prefix_bytes = Gauge(
            "helexa_prefix_cache_bytes", "Bytes of kept prefixes.", where, registry=registry
        )
        self.prefix_entries = Gauge(
            "helexa_prefix_cache_entries", "Kept prefixes.", where, registry=registry
        )
        self.of_models = (
            self.in_flight,
            self.queued,
            self.slots,
            self.waiting_keys,
            self.expected_wait,
            self.kv_tokens,
            self.kv_bytes,
            self.kv_pool_tokens,
            self.prefix_bytes,
            self.prefix_entries,
        )
        self.prefix_hits = Counter(
            "helexa_prefix_cache_hits",
            "Sequences that began with a kept prefix.",
            where,
            registry=registry,
        )
        self.prefix_saved_tokens = Counter(
            "helexa_prefix_cache_saved_tokens",
            "Prompt tokens that were not computed again.",
            where,
            registry=registry,
        )
        self.prefix_evictions = Counter(
            "helexa_prefix_cache_evictions",
            "Kept prefixes that made room.",
            where,
            registry=registry,
        )
        self.preemptions = Counter(
            "helexa_preemptions",
            "Sequences that gave way in a full KV cache, and were computed again later.",
            where,
            registry=registry,
        )
        self.drafted_tokens = Counter(
            "helexa_drafted_tokens",
            "Tokens that were guessed and computed beside the next one.",
            where,
            registry=registry,
        )
        self.accepted_tokens = Counter(
            "helexa_accepted_tokens",
            "Guessed tokens that turned out right, each of them a step less.",
            where,
            registry=registry,
        )
        self.loads = Counter(
            "helexa_model_loads",
            "Model loads by how they ended.",
            [*where, "outcome"],
            registry=registry,
        )
        self.load_seconds = Histogram(
            "helexa_model_load_seconds",
            "Time of successful model loads.",
            where,
            buckets=SECONDS,
            registry=registry,
        )
        self.cold_starts = Counter(
            "helexa_cold_starts",
            "Loads that a request had to wait for.",
            where,
            registry=registry,
        )
        self.fleet_loads = Counter(
            "helexa_fleet_loads",
            "Loads that the fleet had nodes do, by how they ended.",
            [*where, "outcome"],
            registry=registry,
        )
        self.fleet_load_seconds = Histogram(
            "helexa_fleet_load_seconds",
            "Time of successful loads, as the gateway saw it.",
            where,
            buckets=SECONDS,
            registry=registry,
        )
        self.evictions = Counter(
            "helexa_evictions",
            "Models that the fleet had nodes unload: for room, ttl, defrag, or by an operator.",
            [*where, "cause"],
            registry=registry,
        )
        self.retries = Counter(
            "helexa_retries",
            "Requests that were sent to a further node.",
            ["model"],
            registry=registry,
        )
        self.fleet_wait = Histogram(
            "helexa_fleet_wait_seconds",
            "Time that requests waited for a load or a turn of their model.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.fleet_waiting = Gauge(
            "helexa_fleet_waiting",
            "Requests that wait for a load or a turn of their model.",
            registry=registry,
        )
        self.node_up = Gauge(
            "helexa_node_up", "1 when the node answers.", ["node"], registry=registry
        )
        self.node_open = Gauge(
            "helexa_node_breaker_open",
            "1 when the node's breaker keeps requests from it.",
            ["node"],
            registry=registry,
        )
        self.restarts = Counter(
            "helexa_actor_restarts", "Crashes of actors.", ["actor"], registry=registry
        )
        self.refusals = Counter(
            "helexa_refusals",
            "Requests refused at a listener or by a route other than a chat's.",
            ["listener", "code"],
            registry=registry,
        )
        device = ["device", "node"]
        self.device_total = Gauge(
            "helexa_device_memory_bytes", "Memory of the device.", device, registry=registry
        )
        self.device_used = Gauge(
            "helexa_device_memory_used_bytes", "Memory in use.", device, registry=registry
        )
        self.device_poisoned = Gauge(
            "helexa_device_poisoned",
            "1 when the device cannot be used until the process restarts.",
            device,
            registry=registry,
        )
        build = Gauge("helexa_build_info", "Always 1.", ["version"], registry=registry)
        build.labels(__version__).set(1)

    def load_ended(self, model: str, node: str, outcome: str, seconds: float | None = None) -> None:
        self.loads.labels(self.label(model), node, outcome).inc()
        if seconds is not None:
            self.load_seconds.labels(self.label(model), node).observe(seconds)

    def fleet_load_ended(
        self, model: str, node: str, outcome: str, seconds: float | None = None
    ) -> None:
        self.fleet_loads.labels(self.label(model), node, outcome).inc()
        if seconds is not None:
            self.fleet_load_seconds.labels(self.label(model), node).observe(seconds)

    def evicted(self, model: str, node: str, cause: str) -> None:
        self.evictions.labels(self.label(model), node, cause).inc()

    def retried(self, model: str) -> None:
        self.retries.labels(self.label(model)).inc()

    def waited(self, model: str, seconds: float) -> None:
        """A request has its node; it waited so long for a load or a turn."""
        self.fleet_wait.labels(self.label(model)).observe(seconds)

    def decided(self, model: str, node: str, decision: str) -> None:
        self.admissions.labels(self.label(model), node, decision).inc()

    def node_is(self, node: str, *, up: bool, breaker_open: bool) -> None:
        self.node_up.labels(node).set(up)
        self.node_open.labels(node).set(breaker_open)

    def prefixes_used(self, model: str, node: str, counted: Counted) -> None:
        where = (self.label(model), node)
        self.prefix_hits.labels(*where).inc(counted.hits)
        self.prefix_saved_tokens.labels(*where).inc(counted.saved_tokens)
        self.prefix_evictions.labels(*where).inc(counted.evictions)
        self.preemptions.labels(*where).inc(counted.preemptions)
        self.drafted_tokens.labels(*where).inc(counted.drafted)
        self.accepted_tokens.labels(*where).inc(counted.accepted)

    def refused(self, listener: str, code: str) -> None:
        self.refusals.labels(listener, code).inc()

    def cold_start(self, model: str, node: str) -> None:
        self.cold_starts.labels(self.label(model), node).inc()

    def label(self, model: str) -> str:
        """The model's id if the catalogue has it, else `unknown`."""
        return model if self._is_listed(model) else UNKNOWN
