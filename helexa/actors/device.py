"""The device actor: one OS thread that owns a device, and who waits for what it does.

Trio posts orders to the thread, the thread posts notices back, once per step.  The thread lives as
long as the actor: CUDA contexts, graphs and streams belong to a thread, so all torch work stays on it.
Script models need no thread: their orders go to a driver of their own (`helexa.actors.script`).
"""

import itertools
import queue
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import trio
from attrs import define, evolve, field, frozen

from helexa import logs
from helexa.actors.driver import Deliver, Driver, is_last
from helexa.actors.script import ScriptDriver
from helexa.actors.supervisor import hopeless
from helexa.devices.abilities import Abilities
from helexa.devices.discovery import DeviceInfo
from helexa.devices.monitor import Readings
from helexa.engine.orders import (
    Abort,
    Add,
    Crashed,
    Failed,
    Load,
    Loaded,
    Measure,
    Measured,
    Notice,
    Order,
    Resize,
    Stop,
    Unload,
)
from helexa.errors import DevicePoisoned, ServiceUnavailable

log = logs.get("helexa.device")

STOP_SECONDS = 10.0  # for a step or a load in hand at shutdown; then the thread is abandoned
READ_EVERY_SECONDS = 2.0
RECOVERING_SECONDS = 2.0  # what a client should wait for after a crash
FIRST_LOAD_SECONDS = 30.0  # the guess at how long a model takes to load, before one did


Made = TypeVar("Made", Load, Add)


class Worker(Protocol):
    """What the thread drives: `helexa.engine.worker.Worker`, or a fake in tests."""

    @property
    def idle(self) -> bool: ...
    def apply(self, order: Load | Measure | Unload | Resize | Add | Abort) -> Sequence[Notice]: ...
    def step(self) -> Sequence[Notice]: ...


class DeviceThread:
    """Runs a worker on one OS thread."""

    def __init__(self, name: str, make_worker: Callable[[], Worker]) -> None:
        self._name = name
        self._make_worker = make_worker
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()

    def post(self, order: Order) -> None:
        """Never blocks; safe in the `finally` of a cancelled task."""
        self._orders.put(order)

    async def run(self, deliver: Deliver) -> None:
        """Until cancelled, or until the worker raises.

        A thread cannot be cancelled and one that is blocked on its queue cannot even look, so a
        cancellation posts Stop and waits for the step in hand, up to STOP_SECONDS.
        """
        token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True) as shield:
                nursery.start_soon(self._stop_when_cancelled, shield)
                await trio.to_thread.run_sync(
                    self._loop,
                    token,
                    deliver,
                    thread_name=self._name,
                    limiter=trio.CapacityLimiter(1),  # kept out of Trio's pool of worker threads
                    abandon_on_cancel=True,
                )
            nursery.cancel_scope.cancel()

    def forget(self) -> None:
        """Drop the orders that a dead thread left behind; a new one starts with an empty device."""
        while not self._orders.empty():
            self._orders.get_nowait()

    async def _stop_when_cancelled(self, shield: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.post(Stop())
            shield.deadline = trio.current_time() + STOP_SECONDS

    def _loop(self, token: trio.lowlevel.TrioToken, deliver: Deliver) -> None:
        first = self._orders.get()
        if isinstance(first, Stop):
            return
        worker = self._make_worker()  # not before there is work: it imports torch
        orders: Iterable[Order] = [first]
        while True:
            notices: list[Notice] = []
            for order in orders:
                if isinstance(order, Stop):
                    return
                notices.extend(worker.apply(order))
            if not worker.idle:
                notices.extend(worker.step())
            if notices:
                token.run_sync_soon(deliver, notices)  # one wake-up per step, not per token
            orders = self._take_orders(wait=worker.idle)

    def _take_orders(self, *, wait: bool) -> Iterator[Order]:
        """Everything posted since the last step; with `wait` at least one order."""
        if wait:
            yield self._orders.get()
        while not self._orders.empty():
            yield self._orders.get_nowait()


Inbox = trio.MemoryReceiveChannel[Notice]


@define
class Waiting:
    """Who hears of the things that live on the device.  Touched only from the Trio thread.

    The channels are unbounded so that `deliver`, which has no task to raise into, cannot fail; a
    sequence's own max_tokens bounds what can lie in them.
    """

    _channels: dict[int, trio.MemorySendChannel[Notice]] = field(factory=dict)

    def open(self, uids: Iterable[int]) -> Inbox:
        send, receive = trio.open_memory_channel[Notice](float("inf"))
        for uid in uids:
            self._channels[uid] = send
        return receive

    def close(self, uid: int) -> bool:
        """Stop listening; True if the device still has it."""
        return self._channels.pop(uid, None) is not None

    def deliver(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            channel = self._channels.get(notice.uid)
            if channel is None:  # the asker left; its Abort is on the way
                continue
            channel.send_nowait(notice)
            if is_last(notice):
                del self._channels[notice.uid]

    def end_all(self, last_notice: Callable[[int], Notice]) -> None:
        for uid in list(self._channels):
            self.deliver([last_notice(uid)])


@frozen
class DeviceStatus:
    info: DeviceInfo
    readings: Readings | None
    poisoned: bool
    num_sequences: int
    abilities: Abilities | None = None  # as the node tells of it


class Device:
    """One device of this host.

    `run` may crash and be run again; whoever waits for a notice then gets Failed.  `drain_seconds` is
    what the process takes to end, should the device be poisoned.
    """

    def __init__(
        self,
        info: DeviceInfo,
        driver: Driver,
        read: Callable[[], Awaitable[Readings | None]],
        on_poisoned: Callable[[str], None],
        *,
        drain_seconds: float = 0.0,
    ) -> None:
        self.info = info
        self.readings: Readings | None = None
        self._driver = driver
        self._scripts = ScriptDriver()
        self._read = read
        self._on_poisoned = on_poisoned
        self._waiting = Waiting()
        self._uids = itertools.count(1)
        self._sequences: set[int] = set()
        self._poisoned = False
        self._drain_seconds = drain_seconds
        self._load_seconds = FIRST_LOAD_SECONDS  # of the last load

    # -- what others call, from the Trio thread --------------------------------------------------

    def status(self) -> DeviceStatus:
        """What script models pretend to fill is not there for others, though no driver tells of it."""
        readings, filled = self.readings, self._scripts.filled_mb
        if readings is not None and filled:
            used, free = readings.vram_used_mb + filled, readings.vram_free_mb - filled
            readings = evolve(readings, vram_used_mb=used, vram_free_mb=max(0, free))
        return DeviceStatus(self.info, readings, self._poisoned, len(self._sequences))

    async def refresh(self) -> None:
        """Read the device now; what it does not tell this time stays as it was."""
        self.readings = await self._read() or self.readings

    def load(self, order: Callable[[int], Load]) -> tuple[int, Inbox]:
        """Begin a load; its inbox also tells of a later crash.  Give it back with `unload`."""
        self._refuse_poisoned()
        made = self._number(order)
        inbox = self._waiting.open([made.uid])
        self._post(made)
        return made.uid, inbox

    async def measure(self, order: Callable[[int], Measure]) -> Measured:
        """What the device tells, or the HelexaError that it fails with."""
        self._refuse_poisoned()
        made = order(next(self._uids))
        inbox = self._waiting.open([made.uid])
        self._post(made)
        try:
            while True:
                match await inbox.receive():
                    case Measured() as measured:
                        return measured
                    case Failed(_, error):
                        raise error
                    case Crashed(_, reason):
                        raise ServiceUnavailable(reason, retry_after=self._seconds_to_return)
        finally:
            self.abort(made.uid)

    def abandon(self, uid: int) -> None:
        """Drop a load that is not done, or whose model crashed.  Never waits."""
        self._waiting.close(uid)
        self._post(Abort(uid))

    def unload(self, uid: int) -> None:
        """Free a loaded model; Unloaded (or Failed, if the device dies) comes in its inbox."""
        self._post(Unload(uid))

    def resize(self, uid: int, kv_tokens: int) -> None:
        """Give a loaded model a KV pool of so many tokens; KvUse comes in its inbox."""
        self._post(Resize(uid, kv_tokens))

    @contextmanager
    def sequences(
        self, orders: Sequence[Callable[[int], Add]]
    ) -> Iterator[tuple[list[int], Inbox]]:
        """Run sequences as long as the block lasts; what then still runs is aborted.

        Gives their uids and the inbox that all of their notices come to.
        """
        self._refuse_poisoned()
        numbered = [self._number(order) for order in orders]
        uids = [order.uid for order in numbered]
        inbox = self._waiting.open(uids)
        self._sequences.update(uids)
        for order in numbered:
            self._post(order)
        try:
            yield uids, inbox
        finally:  # nothing here may await: we may be cancelled
            for uid in uids:
                self.abort(uid)
            inbox.close()

    def abort(self, uid: int) -> None:
        """End one sequence early."""
        if self._waiting.close(uid):
            self._post(Abort(uid))
        self._sequences.discard(uid)

    def _number(self, order: Callable[[int], Made]) -> Made:
        """The order with a uid of its own, which is below zero for what is a script model's."""
        made = order(next(self._uids))
        return evolve(made, uid=-made.uid) if made.script else made

    def _post(self, order: Load | Measure | Unload | Resize | Add | Abort) -> None:
        driver = self._scripts if order.uid < 0 else self._driver
        driver.post(order)

    def _refuse_poisoned(self) -> None:
        if self._poisoned:
            raise ServiceUnavailable(
                f"device {self.info.index} ({self.info.name}) is out of order until helexa restarts",
                retry_after=self._seconds_to_return,
            )

    @property
    def _seconds_to_return(self) -> float:
        """When to come back: after a restart of the process, or of our thread alone."""
        return self._drain_seconds + self._load_seconds if self._poisoned else RECOVERING_SECONDS

    # -- the actor -------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Returns only when the device is poisoned: the process must then end."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._read_now_and_then)
                nursery.start_soon(self._scripts.run, self._deliver)
                task_status.started()
                await self._driver.run(self._deliver)
        except Exception as error:
            poison = hopeless(error)
            if not isinstance(poison, DevicePoisoned):
                raise
            self._poisoned = True
            log.error("device poisoned", device=self.info.index, reason=str(poison))
            self._on_poisoned(self.info.name)
        finally:
            self._driver.forget()
            self._scripts.forget()
            self._waiting.end_all(self._last_notice)

    def _deliver(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            if isinstance(notice, Loaded):
                self._load_seconds = notice.seconds
        self._waiting.deliver(notices)

    def _last_notice(self, uid: int) -> Notice:
        reason = f"device {self.info.index} failed while it worked"
        if uid in self._sequences:
            return Failed(uid, ServiceUnavailable(reason, retry_after=self._seconds_to_return))
        return Crashed(uid, reason)

    async def _read_now_and_then(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self.refresh()
        task_status.started()
        while True:
            await trio.sleep(READ_EVERY_SECONDS)
            await self.refresh()
