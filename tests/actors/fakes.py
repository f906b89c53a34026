"""A device that counts, on the mock clock, and a library without files: what actors are tested with."""

from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from attrs import define, evolve, field

from helexa.actors.device import Deliver, Device
from helexa.actors.node import Node
from helexa.actors.place import AtStart
from helexa.actors.supervisor import RestartPolicy, keep_running
from helexa.config.schema import Config
from helexa.conversation import (
    ChoiceFinished,
    Conversation,
    Message,
    Sampling,
    Text,
    TextDelta,
    TokenLogprob,
)
from helexa.devices.discovery import DeviceInfo
from helexa.devices.monitor import Readings
from helexa.engine.orders import (
    Abort,
    Add,
    Crashed,
    Failed,
    KvUse,
    Load,
    Loaded,
    LoadProgress,
    Measure,
    Measured,
    Notice,
    Order,
    Piece,
    PrefillProgress,
    PromptScores,
    Quant,
    Resize,
    Stop,
    Top,
    Unload,
    Unloaded,
)
from helexa.errors import HelexaError, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel, SamplingDefaults
from helexa.fleet.known import Known, Size
from helexa.fleet.limits import Terms
from helexa.fleet.quant import Packable
from helexa.metrics import Metrics
from helexa.store.source import directory_name, parse_source
from helexa.text.prompt import Prompt
from helexa.trace import Trace

STOP_ID = 0
NOWHERE = "path:/nowhere"
KV_BYTES_PER_TOKEN = 4096  # of FakeLibrary's models in fp32


@define(eq=False)
class FakeWorker:
    """Counts: every step gives each live sequence its next number, until max_tokens.

    A prompt is read in steps of `chunk_tokens`, and kept for those of the same salt that begin alike.
    """

    load_steps: int = 2
    chunk_tokens: int = 10**6
    kv_tokens: int | None = None  # instead of what was ordered
    alone: str = ""
    refuse_loads: list[HelexaError] = field(factory=list)
    models: dict[int, str] = field(factory=dict)
    loads: dict[int, Load] = field(factory=dict)
    pools: dict[int, "FakePool"] = field(factory=dict)
    loading: dict[int, int] = field(factory=dict)
    live: dict[int, tuple[Add, int]] = field(factory=dict)
    orders: list[Add] = field(factory=list)
    resizes: list[tuple[str, int]] = field(factory=list)
    num_loads: int = 0
    crash: Exception | None = None
    speeds: tuple[tuple[Quant, float], ...] = ()
    measures: bool = True  # else it is never done
    measurements: list[Measure] = field(factory=list)

    @property
    def idle(self) -> bool:
        return not self.live and not self.loading

    def apply(self, order: Load | Measure | Unload | Resize | Add | Abort) -> Sequence[Notice]:
        match order:
            case Measure(uid):
                self.measurements.append(order)
                if not self.measures:
                    return []
                if self.speeds:
                    return [Measured(uid, self.speeds)]
                return [Failed(uid, ServiceUnavailable("it cannot be measured"))]
            case Load(uid):
                self.num_loads += 1
                if self.refuse_loads:
                    return [Failed(uid, self.refuse_loads.pop(0))]
                self.loading[uid] = 0
                self.models[uid], self.loads[uid] = order.model, order
            case Unload(uid):
                gone = [u for u, (add, _) in self.live.items() if add.model_uid == uid]
                failed = [Failed(u, ServiceUnavailable("unloaded")) for u in gone]
                for u in gone:
                    del self.live[u]
                self.models.pop(uid, None)  # it may have crashed already
                return [*failed, Unloaded(uid)]
            case Resize(uid, kv_tokens) if uid in self.models:
                self.resizes.append((self.models[uid], kv_tokens))
                self.pools[uid].resize(kv_tokens, self._running(uid))
                return self._told(uid)
            case Add(uid, model_uid):
                if model_uid not in self.models:
                    return [Failed(uid, ServiceUnavailable("no such model"))]
                self.orders.append(order)
                self.live[uid] = (order, 0)
                self.pools[model_uid].begin(order)
            case Abort(uid):
                add, _ = self.live.pop(uid, (None, 0))
                if add is not None:
                    return self._told(add.model_uid)
                if self.loading.pop(uid, None) is not None:
                    self.models.pop(uid, None)
        return []

    def step(self) -> Sequence[Notice]:
        if self.crash is not None:
            error, self.crash = self.crash, None
            raise error
        told = [*self._load_on(), *self._count_on()]
        return [*told, *(use for uid in self.models for use in self._told(uid))]

    def _load_on(self) -> list[Notice]:
        notices: list[Notice] = []
        for uid, done in list(self.loading.items()):
            if done == self.load_steps:
                del self.loading[uid]
                tokens = self.loads[uid].kv_tokens if self.kv_tokens is None else self.kv_tokens
                self.pools[uid] = FakePool(tokens)
                notices.append(Loaded(uid, 1 << 20, 1.0, tokens, KV_BYTES_PER_TOKEN, self.alone))
            else:
                self.loading[uid] = done + 1
                notices.append(LoadProgress(uid, done + 1, self.load_steps))
        return notices

    def _count_on(self) -> list[Notice]:
        notices: list[Notice] = []
        for uid, (add, count) in list(self.live.items()):
            if count == 0:
                notices.append(self.pools[add.model_uid].read(add, self.chunk_tokens))
                if notices[-1].done_tokens < len(add.prompt):
                    continue
                if add.prompt_logprobs is not None:
                    notices.append(PromptScores(uid, tuple((t, -1.0, ()) for t in add.prompt)))
            count += 1
            last = count == add.max_tokens
            notices.append(Piece(uid, count, "length" if last else None))
            if last:
                del self.live[uid]
            else:
                self.live[uid] = (add, count)
        return notices

    def _told(self, uid: int) -> list[Notice]:
        return self.pools[uid].news(uid, self._running(uid)) if uid in self.pools else []

    def _running(self, uid: int) -> int:
        live = [(add, count) for add, count in self.live.values() if add.model_uid == uid]
        return sum(len(add.prompt) + count for add, count in live)

    def forget(self) -> None:
        self.live.clear()
        self.loading.clear()
        self.models.clear()

    def crash_model(self, model: str) -> list[Notice]:
        """What the engine says when a model's step fails."""
        uid = next(uid for uid, name in self.models.items() if name == model)
        failed = [u for u, (add, _) in self.live.items() if add.model_uid == uid]
        for u in failed:
            del self.live[u]
        del self.models[uid]
        return [
            *(Failed(u, ServiceUnavailable("the model crashed")) for u in failed),
            Crashed(uid, "boom"),
        ]


@define(eq=False)
class FakePool:
    """Keeps every prompt that was read, and forgets the oldest when it is made smaller."""

    total: int
    kept: list[tuple[str, tuple[int, ...]]] = field(factory=list)
    done: dict[int, int] = field(factory=dict)
    cached: dict[int, int] = field(factory=dict)
    hits: int = 0
    told: tuple[int, int, int] | None = (0, 0, 0)

    def begin(self, add: Add) -> None:
        mine = (prompt for salt, prompt in self.kept if salt == add.salt)
        shared = max((num_shared(add.prompt[:-1], prompt) for prompt in mine), default=0)
        self.done[add.uid] = self.cached[add.uid] = shared
        self.hits += shared > 0

    def read(self, add: Add, tokens: int) -> PrefillProgress:
        done = self.done[add.uid] = min(len(add.prompt), self.done[add.uid] + tokens)
        if done == len(add.prompt):
            self.kept.append((add.salt, add.prompt))
        return PrefillProgress(add.uid, done, len(add.prompt), self.cached[add.uid])

    def resize(self, kv_tokens: int, running: int) -> None:
        self.total = max(kv_tokens, running)
        while self.kept and running + sum(len(prompt) for _, prompt in self.kept) > self.total:
            self.kept.pop(0)
        self.told = None  # it is answered, though nothing else changed

    def news(self, uid: int, running: int) -> list[Notice]:
        cached = sum(len(prompt) for _, prompt in self.kept)
        now = (running, cached, self.hits)
        if now == self.told:
            return []
        self.told = now
        saved = sum(self.cached.values())
        return [KvUse(uid, running, cached, self.total, len(self.kept), self.hits, saved)]


def num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class VirtualDriver:
    """Runs a worker as a task on the mock clock: one step every `step_seconds`."""

    def __init__(self, worker: FakeWorker, step_seconds: float = 1.0) -> None:
        self.worker = worker
        self._step_seconds = step_seconds
        self._wake = trio.Event()
        self._orders: list[Order] = []
        self.deliver: Deliver

    def post(self, order: Order) -> None:
        self._orders.append(order)
        self._wake.set()

    def forget(self) -> None:
        self._orders.clear()

    async def run(self, deliver: Deliver) -> None:
        self.deliver = deliver
        try:
            while True:
                await self._step(deliver)
        finally:
            with trio.CancelScope(shield=True):  # the last orders of those who leave
                await trio.lowlevel.checkpoint()
            self._take(deliver)

    async def _step(self, deliver: Deliver) -> None:
        self._take(deliver)
        if self.worker.idle:
            await self._wake.wait()
            self._wake = trio.Event()
            return
        await trio.sleep(self._step_seconds)
        self._take(deliver)
        deliver(self.worker.step())

    def _take(self, deliver: Deliver) -> None:
        while self._orders:
            order = self._orders.pop(0)
            if not isinstance(order, Stop):
                deliver(self.worker.apply(order))


class NumberReader:
    """Tokens as their numbers; a stop string ends at the number it names."""

    def __init__(self, choice: int, conversation: Conversation, prompt: Prompt) -> None:
        self._choice = choice
        self._stops = conversation.sampling.stop
        self.stopped = False
        self.reasoning_tokens = 0

    def push(self, piece: Piece) -> Sequence[TextDelta | ChoiceFinished]:
        if str(piece.token) in self._stops:
            self.stopped = True
            return [ChoiceFinished(self._choice, "stop", str(piece.token))]
        delta = TextDelta(self._choice, f"{piece.token} ")
        return [delta, ChoiceFinished(self._choice, piece.finish)] if piece.finish else [delta]


class FakeLibrary:
    """Every model has files; a prompt is one token per character of its last message."""

    def __init__(
        self, terms: Terms = Terms(1000, output_reserve=200), num_parameters: int = 1 << 20
    ) -> None:
        self._terms = terms
        self.packable = Packable()
        self._num_parameters = num_parameters
        self.prompt_seconds = 0.0
        self.num_prompts_in_work = 0
        self.bug: Exception | None = None

    async def known(self, entry: CatalogueModel) -> Known:
        await trio.lowlevel.checkpoint()
        return Known(
            entry=entry,
            path=Path("/nowhere"),
            size=Size(
                self._num_parameters,
                elements_per_token=64,
                full_layers=16,
                packable=self.packable,
            ),
            terms=evolve(self._terms, kv_budget_mb=entry.kv_budget_mb),
            stop_ids=frozenset({STOP_ID}),
            defaults=SamplingDefaults(),
            tool_call=False,
            reasoning=False,
            finish=lambda _, prompts: prompts,
            reader=NumberReader,
            score=lambda tokens: tuple(scored(*token) for token in tokens),
        )

    async def fetch(
        self, entry: CatalogueModel, progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()

    async def touch(self, entry: CatalogueModel) -> None:
        await trio.lowlevel.checkpoint()

    async def stored(self) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset({directory_name(parse_source(NOWHERE))})

    async def prompts(
        self, known: Known, conversation: Conversation, salt: str = ""
    ) -> tuple[Prompt, ...]:
        if self.bug is not None:
            raise self.bug
        self.num_prompts_in_work += 1
        try:
            await trio.sleep(self.prompt_seconds)
        finally:
            self.num_prompts_in_work -= 1
        return known.finish(conversation, one_token_per_character(conversation))

    async def count(self, known: Known, conversation: Conversation, salt: str = "") -> int:
        await trio.lowlevel.checkpoint()
        return sum(len(prompt.ids) for prompt in one_token_per_character(conversation))


def one_token_per_character(conversation: Conversation) -> tuple[Prompt, ...]:
    """Of the last message, or of every text."""
    if conversation.texts:
        return tuple(prompt_of(text) for text in conversation.texts if isinstance(text, str))
    part = conversation.messages[-1].parts[0]
    assert isinstance(part, Text)
    return (prompt_of(part.text),)


def prompt_of(text: str) -> Prompt:
    return Prompt(tuple(map(ord, text)), text)


def scored(token: int, logprob: float, top: Top) -> TokenLogprob:
    others = tuple(scored(*other, ()) for other in top)
    return TokenLogprob(chr(token), chr(token).encode(), logprob, others)


class FakeDesired:
    """Remembers what it was told; the disk takes `disk_seconds`."""

    def __init__(self, disk_seconds: float = 0.0) -> None:
        self.told: list[tuple[str, str]] = []
        self.disk_seconds = disk_seconds

    def loading(self, model: str, source: str, devices: tuple[str, ...], *, asked: bool) -> None:
        self.told.append(("loading", model))

    def loaded(self, model: str) -> None:
        self.told.append(("loaded", model))

    def gone(self, model: str) -> None:
        self.told.append(("gone", model))

    def failed(self, model: str) -> None:
        self.told.append(("failed", model))

    async def saved(self) -> None:
        await trio.sleep(self.disk_seconds)


def cpu(index: int = 0, total_mb: int = 16_000) -> DeviceInfo:
    return DeviceInfo(index, "fake", f"fake-{index}", total_mb, None, "cpu")


def readings(free_mb: int = 16_000) -> Readings:
    return Readings(vram_used_mb=0, vram_free_mb=free_mb)


class FakeHost:
    """A node over one virtual device, started in a nursery."""

    def __init__(self, config: Config = Config(), library: FakeLibrary | None = None) -> None:
        self.worker = FakeWorker()
        self.driver = VirtualDriver(self.worker)
        self.poisoned: list[str] = []
        self.desired = FakeDesired()
        self.device = Device(cpu(), self.driver, self.read, self.poisoned.append)
        self.library = library or FakeLibrary()
        self.metrics = Metrics()
        self.node = Node(config, [(self.device, "fp32")], self.library, self.desired, self.metrics)

    async def read(self) -> Readings:
        await trio.lowlevel.checkpoint()
        return readings()

    async def start(self, nursery: trio.Nursery, at_start: Sequence[CatalogueModel] = ()) -> None:
        policy = RestartPolicy(max_restarts=1000, within=1.0, first_delay=1.0, max_delay=1.0)
        await nursery.start(keep_running, "device", self.supervised, policy)
        self.node.activate()
        await nursery.start(self.node.run, lambda: [AtStart(entry) for entry in at_start])

    async def supervised(self, *, task_status: trio.TaskStatus[None]) -> None:
        """The device; its next life begins with an empty worker, as a new thread does."""
        try:
            await self.device.run(task_status=task_status)
        finally:
            self.worker.forget()

    @property
    def at_rest(self) -> bool:
        return not self.worker.live and not self.device.status().num_sequences


def entry(model: str = "tiny", **options: object) -> CatalogueModel:
    return CatalogueModel(id=model, source=NOWHERE, **options)  # type: ignore[arg-type]


def ask(text: str = "hello", model: str = "tiny", **options: object) -> Conversation:
    sampling = options.pop("sampling", Sampling())
    return Conversation(
        model,
        (Message("user", (Text(text),)),),
        sampling=sampling,
        **options,  # type: ignore[arg-type]
    )


def trace() -> Trace:
    return Trace("req_test", "chat")
