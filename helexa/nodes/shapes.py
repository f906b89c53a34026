"""What nodes tell of themselves, helexa's own and the reference's, as the fleet's values.

Every version ever written may be on the other end: unknown fields are not looked at, missing ones have
the defaults that the reference gives them.  Only an answer that is no such JSON at all is refused, with
UpstreamMalformed.
"""

from collections.abc import Mapping
from typing import Literal, cast, get_args

from attrs import evolve, frozen

from helexa.fleet.catalogue import Cost
from helexa.fleet.entry import ModelEntry, ModelStatus
from helexa.fleet.limits import Limit
from helexa.fleet.view import Activation, DeviceView, ModelView, NodeKind, NodeView
from helexa.nodes.told import Told, parse_object, parse_objects

MOST_DEVICES = 64
MOST_MB = 1 << 24  # 16 TiB
MOST_TOKENS = 1 << 30
MOST_REQUESTS = 1_000_000
MOST_SECONDS = 86_400.0
MOST_DOLLARS = 1e6
LONGEST_ERROR = 500
STATUSES = get_args(ModelStatus)
ACTIVATIONS = get_args(Activation)


# -- /health -----------------------------------------------------------------------------------------


@frozen
class Memory:
    """Of one device, in MiB; `total_mb` is 0 where nothing tells what is in use."""

    free_mb: int = 0
    total_mb: int = 0
    poisoned: bool = False


@frozen
class Health:
    """`loads` are models by their ids, of which nothing is known but how busy they are."""

    uptime_seconds: float = 0.0
    activation: Activation = "ready"
    devices: Mapping[int, Memory] = {}
    loads: Mapping[str, ModelView] = {}


def read_health(body: bytes) -> Health:
    told = parse_object(body)
    return Health(
        uptime_seconds=told.number("uptime_secs", MOST_SECONDS * 36_500),
        activation=activation(told),
        devices={index(device): memory(device) for device in told.objects("devices")},
        loads={load.exact("id"): read_load(load) for load in told.objects("models")},
    )


def activation(told: Told) -> Activation:
    """A word, or an object with it."""
    word = told.word("activation", ACTIVATIONS) or told.object("activation").word(
        "state", ACTIVATIONS
    )
    return cast(Activation, word or "ready")


def memory(told: Told) -> Memory:
    free, used = told.count("vram_free_mb", MOST_MB), told.count("vram_used_mb", MOST_MB)
    return Memory(free, free + used, told.flag("poisoned"))


def read_load(told: Told) -> ModelView:
    seconds = told.number("service_seconds", MOST_SECONDS)
    return ModelView(
        ModelEntry(told.exact("id")),
        told.count("in_flight", MOST_REQUESTS),
        told.count("queue_depth", MOST_REQUESTS),
        service_seconds=seconds or None,
        width=told.count("width", MOST_REQUESTS),
        spare_mb=told.count("spare_mb", MOST_MB),
        done_bytes=told.count("done_bytes"),
        total_bytes=told.count("total_bytes"),
    )


# -- /discovery --------------------------------------------------------------------------------------


@frozen
class Discovered:
    """`devices` have no free memory here; `stored` is None where the node does not tell."""

    devices: tuple[DeviceView, ...] = ()
    harnesses: tuple[str, ...] = ()
    stored: frozenset[str] | None = None
    hostname: str = ""
    cuda_unavailable_reason: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing that a node which has only just started would add."""
        return bool(self.devices) and all(device.total_mb for device in self.devices)


def read_discovery(body: bytes) -> Discovered:
    told = parse_object(body)
    return Discovered(
        devices=tuple(
            device_view(device) for device in list(told.objects("devices"))[:MOST_DEVICES]
        ),
        harnesses=tuple(told.texts("harnesses")),
        stored=frozenset(told.texts("stored")) if told.has("stored") else None,
        hostname=told.text("hostname"),
        cuda_unavailable_reason=told.text("cuda_unavailable_reason", most=LONGEST_ERROR),
    )


def device_view(told: Told) -> DeviceView:
    return DeviceView(
        index(told),
        told.text("name"),
        told.count("vram_total_mb", MOST_MB),
        compute_capability=told.text("compute_capability"),
    )


def index(told: Told) -> int:
    return told.count("index", MOST_DEVICES)


# -- /models -----------------------------------------------------------------------------------------


def read_models(body: bytes) -> list[ModelView]:
    """Every model by its id, the first of each; without its load.  One without a usable id is left out."""
    found: dict[str, ModelView] = {}
    for told in parse_objects(body):
        view = read_model(told)
        if view.entry.id:
            found.setdefault(view.entry.id, view)
    return list(found.values())


def read_model(told: Told) -> ModelView:
    limit = read_limit(told.object("limit"))
    entry = ModelEntry(
        id=told.exact("id"),
        harness=told.text("harness"),
        # A status that nobody knows is none in which requests could be sent there.
        status=cast(ModelStatus, told.word("status", STATUSES) or "unloaded"),
        devices=tuple(told.counts("devices", MOST_DEVICES)),
        vram_used_mb=told.count("vram_used_mb", MOST_MB),
        capabilities=tuple(told.texts("capabilities")) or ("text",),
        limit=limit,
        limit_estimated=told.flag("limit_estimated"),
        cost=read_cost(told.object("cost")) if told.has("cost") else None,
        tool_call=told.flag("tool_call"),
        reasoning=told.flag("reasoning"),
    )
    return ModelView(entry, error=told.text("error", most=LONGEST_ERROR) or None)


def read_limit(told: Told) -> Limit | None:
    """None where there is no context.  However much is told of the answer, half is left for the prompt."""
    context = told.count("context", MOST_TOKENS)
    if context == 0:
        return None
    output = min(told.count("output", MOST_TOKENS), context // 2)
    return Limit(context, min(told.count("input") or context, context - output), output)


def read_cost(told: Told) -> Cost:
    def price(key: str) -> float | None:
        return told.number(key, MOST_DOLLARS) if told.has(key) else None

    return Cost(
        price("input") or 0.0, price("output") or 0.0, price("cache_read"), price("cache_write")
    )


# -- /models/{id}/endpoint, /version -----------------------------------------------------------------


def read_endpoint(body: bytes) -> str:
    """Without a last slash; "" where there is none."""
    return parse_object(body).exact("url").rstrip("/")


@frozen
class Version:
    """ "" stands for what is not told; `kind` is whose build it is, as far as that shows."""

    package: str = ""
    git_sha: str = ""
    kind: Literal["helexa", "neuron", ""] = ""

    def __str__(self) -> str:
        return f"{self.package} ({self.git_sha})" if self.git_sha else self.package


def read_version(body: bytes) -> Version:
    told = parse_object(body)
    is_rust = told.has("rustc_version") or told.has("candle_version")
    return Version(
        told.text("package_version", most=40),
        told.text("git_sha", most=12),
        "helexa" if told.has("python_version") else "neuron" if is_rust else "",
    )


# -- all of it ---------------------------------------------------------------------------------------


def compose(
    name: str,
    kind: NodeKind,
    url: str,
    health: Health,
    models: list[ModelView],
    found: Discovered,
    version: str,
    seen_at: float,
) -> NodeView:
    return NodeView(
        name,
        kind,
        url,
        devices=devices(found, health),
        models=tuple(with_load(view, health.loads) for view in models),
        activation=health.activation,
        harnesses=found.harnesses,
        stored=found.stored,
        version=version,
        seen_at=seen_at,
    )


def devices(found: Discovered, health: Health) -> tuple[DeviceView, ...]:
    """The devices of a node with what is free of them; of one that only /health tells, that much."""
    known = {device.index: device for device in found.devices}
    return tuple(
        with_memory(known.get(index, DeviceView(index)), health.devices.get(index, Memory()))
        for index in sorted(known.keys() | health.devices.keys())
    )


def with_memory(device: DeviceView, memory: Memory) -> DeviceView:
    """Never more is free than the device has; all of it where nothing is told: the node knows better."""
    total = device.total_mb or memory.total_mb
    free = min(memory.free_mb, total) if memory.total_mb else total
    return evolve(device, total_mb=total, free_mb=free, poisoned=memory.poisoned)


def with_load(view: ModelView, loads: Mapping[str, ModelView]) -> ModelView:
    load = loads.get(view.entry.id)
    return evolve(load, entry=view.entry, error=view.error) if load else view
