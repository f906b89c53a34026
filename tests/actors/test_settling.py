"""However requests end, and in whatever order things happen, nothing stays taken."""

from functools import partial

import trio
from fakes import FakeHost, ask, entry
from fronts import FakeFront, open_front
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from helexa.config.schema import Admission, Config, Fleet, Server
from helexa.conversation import Conversation, Finished, Sampling
from helexa.errors import HelexaError, ServiceUnavailable
from helexa.fleet.catalogue import Catalogue

CONFIG = Config(
    admission=Admission(max_in_flight=2, max_queue_depth=2, max_wait_secs=20),
    fleet=Fleet(max_load_waiters=3, load_wait_secs=30),
    server=Server(drain_seconds=10),
)
MODELS = ("one", "two")
Script = list[tuple[float, tuple[object, ...]]]

seconds = st.integers(0, 40).map(lambda quarters: quarters / 4)
pauses = st.one_of(st.just(0.0), seconds)
models = st.sampled_from(MODELS)
asking = st.tuples(st.just("ask"), models, st.integers(1, 30), st.integers(1, 3), seconds)
stopping = st.tuples(st.just("stop"), models, st.integers(1, 9))
unloading = st.tuples(st.just("unload"), models, st.booleans())
crashing = st.tuples(st.sampled_from(["crash model", "refuse load"]), models)
dying = st.tuples(st.just("crash device"), models)
steps = st.lists(
    st.tuples(pauses, st.one_of(asking, asking, stopping, unloading, crashing, dying)), max_size=25
)


class World:
    """A gateway over one virtual host, and what is done to it."""

    def __init__(self) -> None:
        self.host = FakeHost(CONFIG)
        self.host.desired.disk_seconds = 0.3
        catalogue = Catalogue(tuple(entry(model) for model in MODELS))
        self.catalogue = catalogue
        self.front: FakeFront
        self.outcomes: list[str] = []  # of requests
        self.unloads: list[str] = []

    async def ask(self, model: str, max_tokens: int, n: int, patience: float) -> None:
        """One client, who leaves after `patience` seconds."""
        conversation = ask("hello", model, max_tokens=max_tokens, n=n)
        with trio.move_on_after(patience) as left:
            await self._consume(conversation)
        if left.cancelled_caught:
            self.outcomes.append("left")

    async def stop(self, model: str, at: int) -> None:
        """One client with a stop string that comes as token number `at`."""
        sampling = Sampling(stop=(str(at),))
        await self._consume(ask("hello", model, max_tokens=40, sampling=sampling))

    async def _consume(self, conversation: Conversation) -> None:
        try:
            last = (await self.front.answer(conversation))[-1]
        except HelexaError as error:
            self.outcomes.append(type(error).__name__)
        else:
            assert isinstance(last, Finished)
            self.outcomes.append("finished")

    async def unload(self, model: str, if_idle: bool) -> None:
        try:
            await self.host.node.unload(model, if_idle=if_idle)
        except HelexaError as error:
            self.unloads.append(type(error).__name__)
        else:
            self.unloads.append("unloaded")

    def crash_model(self, model: str) -> None:
        worker = self.host.worker
        if model in worker.models.values() and not worker.loading:
            self.host.driver.deliver(worker.crash_model(model))

    def crash_device(self, model: str) -> None:
        if not self.host.worker.idle:
            self.host.worker.crash = RuntimeError("a bug in the loop")

    def refuse_load(self, model: str) -> None:
        self.host.worker.refuse_loads.append(ServiceUnavailable("torn"))


async def live_through(script: Script, shutdown: bool) -> None:
    """Clients and faults as the script has them; then rest, or a shutdown in the middle of it."""
    world = World()
    num_clients = num_unloads = 0
    async with trio.open_nursery() as host:
        await world.host.start(host)
        world.front = await open_front(host, world.host, world.catalogue, CONFIG)
        async with trio.open_nursery() as clients:
            for pause, (what, *args) in script:
                await trio.sleep(pause)
                match what:
                    case "ask" | "stop":
                        num_clients += 1
                        clients.start_soon(partial(getattr(world, str(what)), *args))
                    case "unload":
                        num_unloads += 1
                        clients.start_soon(partial(world.unload, *args))
                    case _:
                        getattr(world, str(what).replace(" ", "_"))(*args)
            if shutdown:
                clients.cancel_scope.cancel()
                host.cancel_scope.cancel()
        await trio.sleep(60)  # restarts, drains and aborts that are under way
        await assert_at_rest(world)
        assert len(world.outcomes) == num_clients
        assert len(world.unloads) == num_unloads
        host.cancel_scope.cancel()
    await trio.sleep(2)
    assert world.host.worker.live == {}


async def assert_at_rest(world: World) -> None:
    status = await world.host.node.status()
    assert [(m.in_flight, m.queue_depth, m.pool.use.running_tokens) for m in status.models] == [
        (0, 0, 0) for _ in status.models
    ]
    assert world.host.worker.live == {}
    assert world.host.worker.loading == {}
    assert [device.num_sequences for device in status.devices] == [0]
    assert world.front.fleet.num_open == 0
    busy = {m.entry.id: m.status for m in status.models if m.status not in ("loaded", "failed")}
    assert not busy


@settings(max_examples=150)
@given(script=steps, shutdown=st.booleans())
def test_random_lives_leave_nothing_behind(script: Script, shutdown: bool) -> None:
    trio.run(live_through, script, shutdown, clock=MockClock(autojump_threshold=0))
