"""One admitted request on the device: its sequences out, the events of its answers back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from functools import partial

import trio
from attrs import define, evolve, field

from helexa.actors.device import Device, Inbox
from helexa.actors.prefill import Prefill
from helexa.conversation import (
    Conversation,
    Event,
    Events,
    Finished,
    Progress,
    PromptScored,
    Started,
    Usage,
)
from helexa.engine.orders import (
    Add,
    Failed,
    Notice,
    Piece,
    PrefillProgress,
    PromptScores,
    SamplingParams,
)
from helexa.fleet.known import Known, Reader
from helexa.fleet.limits import clamp_output
from helexa.fleet.pace import Demand, Spent
from helexa.fleet.sampling import settle
from helexa.text.prompt import Prompt
from helexa.trace import Trace


@define(eq=False)
class Generation:
    """How far the answers of one request are.  `salt` tells whose cached prompts it may use."""

    known: Known
    conversation: Conversation
    prompts: Sequence[Prompt]
    trace: Trace
    tick_seconds: float
    salt: str = ""
    prefill: Prefill = field(init=False)
    generated_tokens: int = field(default=0, init=False)
    _readers: dict[int, Reader] = field(factory=dict, init=False)  # by sequence
    _choices: dict[int, int] = field(factory=dict, init=False)
    _started: bool = field(default=False, init=False)

    @prefill.default
    def _begin_prefill(self) -> Prefill:
        return Prefill([len(prompt.ids) for prompt in self.prompts], self.conversation.n)

    # -- what it takes ---------------------------------------------------------------------------

    @property
    def prompt_tokens(self) -> int:
        """Each prompt counts once, however many answers it gets."""
        return self.prefill.total

    @property
    def longest_prompt(self) -> int:
        return max(self.prefill.lengths)

    @property
    def usage(self) -> Usage:
        reasoning = sum(reader.reasoning_tokens for reader in self._readers.values())
        return Usage(self.prompt_tokens, self.generated_tokens, self.prefill.cached, reasoning)

    @property
    def demand(self) -> Demand:
        most = (self.max_tokens(prompt) for prompt in self.prompts)
        return Demand(self.prompt_tokens, self.conversation.num_answers, max(most))

    @property
    def spent(self) -> Spent:
        return Spent(max(0, self.prefill.done - self.prefill.cached), self.generated_tokens)

    def max_tokens(self, prompt: Prompt) -> int:
        """Of an answer."""
        return clamp_output(self.conversation.max_tokens, len(prompt.ids), self.known.limit)

    # -- what it runs ----------------------------------------------------------------------------

    def orders(self, model_uid: int) -> list[Callable[[int], Add]]:
        """One for every answer, in the order of their numbers; the device gives each its uid."""
        asked = self.conversation.sampling
        sampling = settle(asked, self.known.entry.sampling, self.known.defaults)
        stop_ids = frozenset(asked.stop_token_ids)
        if not asked.ignore_eos:
            stop_ids |= self.known.stop_ids
        return [
            partial(
                Add,
                model_uid=model_uid,
                prompt=prompt.ids,
                max_tokens=self.max_tokens(prompt),
                sampling=reseed(sampling, choice),
                stop_ids=stop_ids,
                constraint=prompt.constraint,
                script=prompt.script,
                prompt_logprobs=self.conversation.prompt_logprobs,
                salt=self.salt,
            )
            for prompt in self.prompts
            for choice in range(self.conversation.n)
        ]

    async def run(self, device: Device, model_uid: int) -> Events:
        """The events of all answers, up to Finished.  Closing it ends the sequences on the device."""
        with device.sequences(self.orders(model_uid)) as (uids, inbox):
            for choice, uid in enumerate(uids):
                prompt = self.prompts[choice // self.conversation.n]
                self._choices[uid] = choice
                self._readers[uid] = self.known.reader(choice, self.conversation, prompt)
            async with aclosing(self._read(device, inbox)) as batches:
                async for batch in batches:
                    yield batch
        yield [Finished(self.usage)]

    # -- what comes back -------------------------------------------------------------------------

    async def _read(self, device: Device, inbox: Inbox) -> Events:
        """Events until every answer is complete; Progress when there is nothing else to tell."""
        unfinished = set(self._readers)
        while unfinished:
            batch: list[Event] = []
            failed: Failed | None = None
            for notice in await drain(inbox, self.tick_seconds):
                match notice:
                    case Piece(uid) if uid in unfinished:
                        batch += self._read_piece(notice)
                        if notice.finish or self._readers[uid].stopped:
                            unfinished.discard(uid)
                            device.abort(uid)
                    case PromptScores(uid, tokens):
                        batch += self._start()
                        batch.append(PromptScored(self._choices[uid], self.known.score(tokens)))
                    case PrefillProgress(uid):
                        self.prefill.moved(self._choices[uid], notice, trio.current_time())
                        if not self._started:
                            batch.append(self._progress)
                    case Failed():
                        failed = notice
            yield batch or [self._progress]
            if failed is not None:
                raise failed.error

    @property
    def _progress(self) -> Progress:
        if self._started:
            return Progress("decode", self.generated_tokens)
        return Progress("prefill", self.prefill.done, self.prefill.total)

    def _start(self) -> Iterator[Event]:
        if not self._started:
            self._started = True
            yield Started(self.prompt_tokens, self.prefill.cached)

    def _read_piece(self, piece: Piece) -> Iterator[Event]:
        trace, now = self.trace, trio.current_time()
        yield from self._start()
        if trace.first_token_at is None:
            trace.first_token_at = now
        else:
            trace.longest_gap = max(trace.longest_gap, now - trace.last_token_at)
        trace.last_token_at = now
        self.generated_tokens += 1
        yield from self._readers[piece.uid].push(piece)


async def drain(inbox: Inbox, seconds: float) -> list[Notice]:
    """What lies in the inbox: one wake-up however many notices came; none if none came in `seconds`."""
    notices: list[Notice] = []
    with trio.move_on_after(seconds):
        notices.append(await inbox.receive())
    with suppress(trio.WouldBlock):
        while True:
            notices.append(inbox.receive_nowait())
    return notices


def reseed(sampling: SamplingParams, choice: int) -> SamplingParams:
    """Answers of one request differ although its seed is one: the n-th draws from seed + n."""
    return sampling if sampling.seed is None else evolve(sampling, seed=sampling.seed + choice)
