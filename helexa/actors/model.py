"""The model actor: one loaded model on one device, from its load to its unload.

Its nursery holds the model's admission actor, so that the door dies and restarts with the room.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager

import trio
from attrs import define, field, frozen

from helexa import logs
from helexa.actors.admission import Admission, ModelGone, Occupancy, Slot
from helexa.actors.device import Device, Inbox
from helexa.actors.generation import Generation
from helexa.average import smoothed
from helexa.config.schema import PrefixCache
from helexa.conversation import Conversation, Events
from helexa.engine.orders import (
    Crashed,
    Dtype,
    Failed,
    KvUse,
    Load,
    Loaded,
    LoadProgress,
    Quant,
    Unloaded,
)
from helexa.fleet.admission import Rules, Verdict
from helexa.fleet.claim import Grant
from helexa.fleet.known import Known
from helexa.fleet.pool import Counted, Pool, check_fits, counted, is_sized, pool_of, salt_of
from helexa.text.prompt import Prompt
from helexa.trace import Trace

log = logs.get("helexa.node")

UNLOAD_SECONDS = 30.0  # for the device thread to end its step and free the weights


class ModelCrashed(Exception):
    """The device lost the model; loading it again may help."""


@frozen(eq=False)
class Hosted:
    """A model and where and how it runs on this host."""

    known: Known
    torch_device: str
    dtype: Dtype
    rules: Rules
    max_wait_seconds: float
    prefill_chunk_tokens: int
    granted: Grant
    prefix_cache: PrefixCache
    quant: Quant = "none"
    drafts: bool = True

    @property
    def id(self) -> str:
        return self.known.id


@frozen
class Ready:
    model: str
    seconds: float
    weights_mb: int


@frozen
class Recovering:
    model: str


@frozen
class LoadMoved:
    model: str
    done_bytes: int
    total_bytes: int


@frozen
class Prefilled:
    """The device computed so many tokens of a prompt in so many seconds."""

    model: str
    tokens: int
    seconds: float


@frozen
class PrefixesUsed:
    model: str
    counted: Counted


@frozen
class Decided:
    """What became of a request at the model's door."""

    model: str
    verdict: Verdict


ModelNews = Ready | Recovering | LoadMoved | Prefilled | PrefixesUsed | Decided


@define(eq=False)
class Model:
    hosted: Hosted
    device: Device
    _tell: Callable[[ModelNews], None]
    kv_tokens: int = field(init=False)  # of the KV pool as ordered last; a crash does not change it
    _admission: Admission | None = field(default=None, init=False)
    _leaving: trio.Event = field(factory=trio.Event, init=False)
    _uid: int = field(default=0, init=False)
    _pool: Pool = field(default=Pool(), init=False)
    _resized: trio.Event = field(factory=trio.Event, init=False)
    _rate: float = field(default=0.0, init=False)
    _crash: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self.kv_tokens = self.hosted.granted.kv_tokens

    # -- what others call ------------------------------------------------------------------------

    @property
    def admission(self) -> Admission:
        if self._admission is None:
            raise ModelGone
        return self._admission

    @property
    def occupancy(self) -> Occupancy:
        return self._admission.occupancy() if self._admission else Occupancy()

    @property
    def pool(self) -> Pool:
        return self._pool

    @property
    def kv_mb(self) -> int:
        """MiB of the KV pool as it was ordered."""
        return self.kv_tokens * self.hosted.known.terms.kv_bytes_per_token >> 20

    @property
    def growing_mb(self) -> int:
        """MiB that the loaded model's KV pool may take and has not taken yet."""
        pool = self._pool
        return max(0, self.kv_tokens - pool.tokens) * pool.bytes_per_token >> 20

    @property
    def tokens_per_second(self) -> float:
        """Of one answer, smoothed over the latest ones; 0 before the first."""
        return self._rate

    async def close_if_idle(self) -> None:
        """Admit nobody any more, if nothing runs or waits and something was served; else ModelBusy."""
        await self.admission.close(if_idle=True)

    async def drain(self, seconds: float) -> None:
        """Admit nobody any more and let what runs end, for `seconds` at most."""
        with trio.move_on_after(seconds):
            await self.admission.close()

    async def resize(self, kv_tokens: int) -> None:
        """Give it a KV pool of so many whole blocks, or of what runs in it if that is more.

        Ends when the device has done so, or has lost the model.  One at a time.
        """
        if self._admission is None:
            return
        self.kv_tokens, self._resized = kv_tokens, trio.Event()
        self.device.resize(self._uid, kv_tokens)
        await self._resized.wait()

    def leave(self) -> None:
        """Let `run` end and free the model."""
        self._leaving.set()

    async def generate(
        self,
        conversation: Conversation,
        prompts: Sequence[Prompt],
        trace: Trace,
        tick_seconds: float,
    ) -> Events:
        """Admission, then the answer.  ModelGone when the model left in the meantime, InsufficientVram
        for a prompt that its KV pool has no room for.

        However it ends, the slots and the sequences are given back before the generator is closed.
        """
        hosted, admission = self.hosted, self.admission
        salt = salt_of(trace.principal, hosted.prefix_cache.share)
        generation = Generation(hosted.known, conversation, prompts, trace, tick_seconds, salt)
        check_fits(generation.longest_prompt, hosted.known.limit, self._pool)
        slot = admission.slot(trace.principal, trace.share, generation.demand)
        try:
            async with aclosing(admission.admit(slot, trace, tick_seconds)) as waiting:
                async for progress in waiting:
                    yield [progress]
            with self._counting(generation, slot):
                async with aclosing(generation.run(self.device, self._uid)) as batches:
                    async for batch in batches:
                        yield batch
        finally:
            admission.leave(slot)

    @contextmanager
    def _counting(self, generation: Generation, slot: Slot) -> Iterator[None]:
        try:
            yield
        finally:
            slot.spent = generation.spent
            generation.trace.usage = generation.usage
            self._measure(generation)
            if generation.prefill.sample[0]:
                self._tell(Prefilled(self.hosted.id, *generation.prefill.sample))

    def _measure(self, generation: Generation) -> None:
        began_at = generation.trace.first_token_at
        if began_at is None or generation.generated_tokens < 2:
            return
        seconds = trio.current_time() - began_at
        if seconds > 0:
            rate = (generation.generated_tokens - 1) / seconds
            self._rate = smoothed(self._rate or None, rate)

    # -- the actor -------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load, serve until told to `leave` or until the device loses the model, free the device."""
        if self._leaving.is_set():  # it crashed on its way out: nothing is left to free
            return
        self._crash, self._pool = "", Pool()
        uid, inbox = self.device.load(self._load_order)
        loaded = False
        try:
            ready = await self._until_loaded(inbox)
            loaded, self._uid = True, uid
            hosted = self.hosted
            admission = Admission(
                hosted.id, hosted.rules, hosted.max_wait_seconds, self._tell_verdict
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(admission.run)
                self._admission = admission
                self._tell(ready)
                task_status.started()
                nursery.start_soon(self._watch, inbox, nursery.cancel_scope)
                await self._leaving.wait()
                nursery.cancel_scope.cancel()
            if self._crash:
                raise ModelCrashed(self._crash)
        except Exception:
            if loaded and not self._crash:
                self._tell(Recovering(self.hosted.id))
            raise
        finally:
            self._admission = None
            self._resized.set()
            if loaded and not self._crash:
                await self._free(uid, inbox)
            else:
                self.device.abandon(uid)

    def _load_order(self, uid: int) -> Load:
        hosted, terms = self.hosted, self.hosted.known.terms
        windows = hosted.granted.windows
        return Load(
            uid,
            hosted.id,
            hosted.known.path,
            hosted.torch_device,
            hosted.dtype,
            windows.batch_width,
            hosted.prefill_chunk_tokens,
            hosted.known.script,
            self.kv_tokens,
            hosted.prefix_cache.enabled,
            hosted.prefix_cache.parked_mb << 20,
            quant=hosted.quant,
            kv_dtype=terms.kv_dtype,
            kv_bytes=self.kv_tokens * terms.kv_bytes_per_token,
            snapshots=hosted.prefix_cache.max_entries,
            snapshot_bytes=windows.snapshot_bytes,
            drafts=hosted.drafts,
        )

    async def _until_loaded(self, inbox: Inbox) -> Ready:
        while True:
            match await inbox.receive():
                case LoadProgress(_, done, total):
                    self._tell(LoadMoved(self.hosted.id, done, total))
                case Loaded(_, weights_bytes, seconds) as loaded:
                    self._pool, self.kv_tokens = pool_of(loaded), loaded.kv_tokens
                    if loaded.alone:
                        reason = loaded.alone
                        log.info("sequences run one at a time", model=self.hosted.id, reason=reason)
                    return Ready(self.hosted.id, seconds, weights_bytes >> 20)
                case Failed(_, error):
                    raise error
                case Crashed(_, reason):
                    raise ModelCrashed(reason)

    async def _watch(self, inbox: Inbox, serving: trio.CancelScope) -> None:
        """Follow what the KV pool holds; end the serving when the device loses the model.

        It is told and not raised, because an exception beside a cancellation would leave as a group.
        """
        while isinstance(notice := await inbox.receive(), KvUse):
            self._use(notice)
        self._crash = notice.reason if isinstance(notice, Crashed) else str(notice)
        self._tell(Recovering(self.hosted.id))  # at once: a request may look for the model now
        serving.cancel()

    def _tell_verdict(self, verdict: Verdict) -> None:
        self._tell(Decided(self.hosted.id, verdict))

    def _use(self, use: KvUse) -> None:
        news = counted(self._pool.use, use)
        self._pool = self._pool.after(use)
        if is_sized(use, self.kv_tokens):
            self._resized.set()
        if news:
            self._tell(PrefixesUsed(self.hosted.id, news))

    async def _free(self, uid: int, inbox: Inbox) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + UNLOAD_SECONDS):
            self.device.unload(uid)
            while not isinstance(await inbox.receive(), Unloaded | Crashed):
                pass
