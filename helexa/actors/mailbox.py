"""How actors talk: an address, a question, one answer."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import Generic, TypeVar, cast

import trio
from attrs import define, field, frozen

from helexa.errors import ActorDown, Busy, HelexaError

R = TypeVar("R")
M = TypeVar("M")


@define(eq=False)
class Reply(Generic[R]):
    """One answer, given once: the first of `set` and `fail` wins."""

    wanted: bool = field(default=True, init=False)
    _given: trio.Event = field(factory=trio.Event, init=False)
    _value: R | None = field(default=None, init=False)
    _error: HelexaError | None = field(default=None, init=False)

    @property
    def given(self) -> bool:
        return self._given.is_set()

    @property
    def error(self) -> HelexaError | None:
        """What it failed with, None as long as it has not."""
        return self._error

    def set(self, value: R) -> None:
        self._give(value, None)

    def fail(self, error: HelexaError) -> None:
        self._give(None, error)

    def _give(self, value: R | None, error: HelexaError | None) -> None:
        if not self.given:
            self._value, self._error = value, error
            self._given.set()

    async def wait(self) -> R:
        """The answer.  Cancelling it loses nothing: it may be waited for again."""
        if self.given:  # what is here already is no reason to let others go first
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._given.wait()
        if self._error is not None:
            raise self._error
        return cast(R, self._value)

    async def ticks(self, seconds: float, deadline: float) -> AsyncGenerator[None, None]:
        """Wake every `seconds` until the answer is there or the deadline has passed."""
        while not self.given and trio.current_time() < deadline:
            with trio.move_on_at(min(deadline, trio.current_time() + seconds)):
                await self._given.wait()
            if not self.given and trio.current_time() < deadline:
                yield


@frozen(eq=False)
class Request(Generic[R]):
    """A message that wants an answer of type R."""

    reply: Reply[R] = field(factory=Reply, init=False, repr=False)


class Mailbox(Generic[M]):
    """An actor's address.  It outlives the actor, so a restart is only latency to its callers.

    Questions are bounded by `size`; what is told is not, because every settlement (a slot that is
    given back, a model that is gone) follows a question that was let in, and must never be lost.

    An actor that is at rest handles a message in the very step of whoever brought it, which saves two
    changes of tasks; one that is not finds it when it is done.  It never does two things at a time.
    """

    def __init__(self, name: str, size: int = 1024) -> None:
        self.name = name
        self._size = size
        self._send, self._receive = trio.open_memory_channel[M](float("inf"))
        self._taken: set[Request[object]] = set()
        self._handle: Callable[[M], None] | None = None  # of an actor that is at rest
        self._context = copy_context()  # the actor's, for what it logs and starts
        self._crash: Reply[BaseException] = Reply()
        self._closed = False

    def tell(self, message: M) -> None:
        """Never waits and never refuses; safe in the `finally` of a cancelled task."""
        if not self._closed:
            self._put(message)

    def post(self, request: M) -> None:
        """Ask without waiting yet.  Busy when too much is queued, ActorDown when nobody will come."""
        if self._closed:
            raise ActorDown(f"{self.name} is gone")
        if self._receive.statistics().current_buffer_used >= self._size:
            raise Busy(f"{self.name} has too much to do", retry_after=1)
        self._put(request)

    async def ask(self, request: Request[R]) -> R:
        """Ask and wait.  An asker who leaves marks the request as unwanted."""
        self.post(cast(M, request))
        try:
            return await request.reply.wait()
        finally:
            request.reply.wanted = False
            self._taken.discard(cast(Request[object], request))

    async def serve(self, handle: Callable[[M], None]) -> None:
        """The actor's life.  An expected error answers the asker; any other crashes the actor.

        `handle` never waits: what takes time is handed to a task.  A crash fails every question that
        was taken and not yet answered, also those that were handed on; what is still queued waits for
        the actor's next life.
        """
        self._context, self._crash = copy_context(), Reply()
        self._handle = handle
        try:
            self._work()
            raise await self._crash.wait()
        finally:
            self._handle = None
            self._fail_taken()

    def _put(self, message: M) -> None:
        self._send.send_nowait(message)
        self._work()

    def _work(self) -> None:
        """Have an actor that is at rest handle all that is queued."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            for message in self._queued():
                self._context.run(self._serve_one, message, handle)
        except BaseException as error:
            self._crash.set(error)
        else:
            self._handle = handle

    def _queued(self) -> Iterator[M]:
        """What is queued, and what comes meanwhile, out of the queue."""
        with suppress(trio.WouldBlock):
            while True:
                yield self._receive.receive_nowait()

    def _serve_one(self, message: M, handle: Callable[[M], None]) -> None:
        if not isinstance(message, Request):
            return handle(message)
        if not message.reply.wanted:
            return
        self._taken = {taken for taken in self._taken if not taken.reply.given}
        self._taken.add(message)
        try:
            handle(message)
        except HelexaError as error:
            message.reply.fail(error)

    def _fail_taken(self) -> None:
        while self._taken:
            self._taken.pop().reply.fail(
                ActorDown(f"{self.name} crashed with this request in hand")
            )

    def close(self) -> None:
        """Fail what is queued and all that comes after: nobody will read this mailbox again."""
        self._closed = True
        self._fail_taken()
        for message in self._queued():
            if isinstance(message, Request):
                message.reply.fail(ActorDown(f"{self.name} is gone"))
