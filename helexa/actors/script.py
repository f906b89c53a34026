"""The script models of one device: tokens that are known beforehand, at the pace that their rules say.

A driver beside the device's thread.  It takes the same orders and gives the same notices, but it runs
as tasks of Trio's, because nothing is computed.
"""

import math
from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from typing import Literal

import trio
from attrs import define, field

from helexa.actors.driver import Deliver, is_last
from helexa.engine.orders import (
    Abort,
    Add,
    Failed,
    Load,
    Loaded,
    LoadProgress,
    Order,
    Piece,
    PrefillProgress,
    PromptScores,
    Script,
    ScriptLoad,
    Top,
    Unload,
    Unloaded,
)
from helexa.errors import ServiceUnavailable

PROGRESS_SECONDS, MOST_STEPS = 0.5, 1000  # between two notices of a load, and how many there are
AT_ONCE = 64  # tokens of a sequence between two looks at the others
RETRY_AFTER_SECONDS = 2.0


@define(eq=False)
class Running:
    """A load or a sequence, and how to end it."""

    order: Load | Add
    scope: trio.CancelScope = field(factory=trio.CancelScope)


class ScriptDriver:
    """Takes orders of script models alone: every Load and Add has its `script`."""

    def __init__(self) -> None:
        self._orders: deque[Order] = deque()
        self._wake = trio.Event()
        self._running: dict[int, Running] = {}
        self._filled: dict[int, int] = {}  # bytes of every model, loading or loaded
        self._nursery: trio.Nursery
        self._deliver: Deliver

    @property
    def filled_mb(self) -> int:
        """MiB that the models pretend to fill."""
        return sum(self._filled.values()) >> 20

    def post(self, order: Order) -> None:
        """Never blocks; safe in the `finally` of a cancelled task."""
        self._orders.append(order)
        self._wake.set()

    def forget(self) -> None:
        """Drop the orders of a life that is over."""
        self._orders.clear()

    async def run(self, deliver: Deliver) -> None:
        """Until cancelled; another run starts with an empty device."""
        self._deliver = deliver
        try:
            async with trio.open_nursery() as self._nursery:
                while True:
                    while self._orders:
                        self._take(self._orders.popleft())
                    self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            self._running.clear()
            self._filled.clear()

    def _take(self, order: Order) -> None:
        match order:
            case Load():
                self._filled[order.uid] = 0
                self._start(order)
            case Add() if self._is_loaded(order.model_uid):
                self._start(order)
            case Add():
                self._fail(order.uid, "the model was unloaded before this request could start")
            case Abort(uid):
                self._end(uid)
            case Unload(uid):
                self._unload(uid)

    def _is_loaded(self, uid: int) -> bool:
        return uid in self._filled and uid not in self._running

    def _start(self, order: Load | Add) -> None:
        running = self._running[order.uid] = Running(order)
        self._nursery.start_soon(self._run, running)

    async def _run(self, running: Running) -> None:
        with running.scope:
            match running.order:
                case Load(script=ScriptLoad() as script) as load:
                    await self._load(load, script)
                case Add(script=Script() as script) as add:
                    await self._say(add, script)
            del self._running[running.order.uid]

    def _end(self, uid: int) -> None:
        self._filled.pop(uid, None)
        running = self._running.pop(uid, None)
        if running is not None:
            running.scope.cancel()

    def _unload(self, uid: int) -> None:
        for other, running in list(self._running.items()):
            if isinstance(running.order, Add) and running.order.model_uid == uid:
                self._end(other)
                self._fail(other, "the model was unloaded while this request ran on it")
        self._end(uid)
        self._deliver([Unloaded(uid)])

    def _fail(self, uid: int, reason: str) -> None:
        self._deliver([Failed(uid, ServiceUnavailable(reason))])

    async def _load(self, load: Load, script: ScriptLoad) -> None:
        uid, total, began = load.uid, script.weights_bytes, trio.current_time()
        steps = math.ceil(min(script.seconds / PROGRESS_SECONDS, MOST_STEPS)) or 1
        for step in range(steps + 1):
            await until(began + script.seconds * step / steps)
            self._filled[uid] = total * step // steps
            self._deliver([LoadProgress(uid, self._filled[uid], total)])
        self._deliver([Loaded(uid, total, trio.current_time() - began)])

    async def _say(self, add: Add, script: Script) -> None:
        self._deliver(list(prefilled(add)))
        began, pace = trio.current_time(), script.tokens_per_second
        notices, told = spoken(add, script), 0
        while True:
            await until(began + (told + 1) / pace if pace else began)
            due = (trio.current_time() - began) * pace - told if pace else AT_ONCE
            batch = list(islice(notices, max(1, int(min(due, AT_ONCE)))))
            told += len(batch)
            self._deliver(batch)
            if is_last(batch[-1]):
                return


async def until(moment: float) -> None:
    """Sleep; a cancellation that comes between waking up and our turn counts too."""
    await trio.sleep_until(moment)
    await trio.lowlevel.checkpoint_if_cancelled()


def prefilled(add: Add) -> Iterator[PrefillProgress | PromptScores]:
    """The prompt is read at once, and every token of it was certain."""
    yield PrefillProgress(add.uid, len(add.prompt), len(add.prompt))
    if add.prompt_logprobs is not None:
        first: list[tuple[int, float, Top]] = [(token, math.nan, ()) for token in add.prompt[:1]]
        others = ((token, 0.0, certain(token, add.prompt_logprobs)) for token in add.prompt[1:])
        yield PromptScores(add.uid, (*first, *others))


def spoken(add: Add, script: Script) -> Iterator[Piece | Failed]:
    """The answer, to its end.  Where nothing ends it, the script begins anew."""
    top_logprobs = add.sampling.top_logprobs
    for told in count():
        if told == script.fail_after_tokens:
            reason = f"the script model failed after {told} tokens, as its rules say"
            error = ServiceUnavailable(reason, retry_after=RETRY_AFTER_SECONDS)
            yield Failed(add.uid, error)
            return
        token = script.tokens[told % len(script.tokens)]
        is_full = told + 1 >= add.max_tokens
        finish: Literal["stop", "length"] | None
        finish = "stop" if token in add.stop_ids else "length" if is_full else None
        if top_logprobs is None:
            yield Piece(add.uid, token, finish)
        else:
            yield Piece(add.uid, token, finish, 0.0, certain(token, top_logprobs))
        if finish:
            return


def certain(token: int, alternatives: int) -> Top:
    """The likeliest tokens where there is but one."""
    return ((token, 0.0),) if alternatives else ()
