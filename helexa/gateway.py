"""The gateway: from a client's conversation to the node that answers it.

It resolves the alias, has the prompt counted and checked, sees to it that the model is loaded, and
passes the answer on.  It keeps no state but how many wait for a load.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio
from attrs import evolve

from helexa.actors.admission import ModelGone
from helexa.actors.node import Node, tick_seconds
from helexa.config.schema import Config
from helexa.conversation import Conversation, Events, Progress
from helexa.errors import Busy, NotLoaded, ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import NotFetched
from helexa.shelf import Shelf
from helexa.trace import Trace

UNDER_WAY = Progress("queued")  # between two steps: whoever waits may look at the clock
MAX_TRIES = 3  # a model may be unloaded between its load and our place in its line


class Gateway:
    def __init__(self, config: Config, shelf: Shelf, node: Node | None) -> None:
        self._shelf = shelf
        self._node = node
        self._fleet = config.fleet
        self._tick_seconds = tick_seconds(config)
        self.num_load_waiters = 0

    @property
    def node(self) -> Node:
        if self._node is None:
            raise ServiceUnavailable("no node of this fleet is healthy", retry_after=5)
        return self._node

    async def generate(self, conversation: Conversation, trace: Trace) -> Events:
        """The answer's events, with Progress while it waits for a load, a slot or the prompt.

        Raises a HelexaError; whatever was taken is given back when the generator is closed.
        """
        entry = self._shelf.resolve(conversation.model)
        trace.model = entry.id
        conversation = evolve(conversation, model=entry.id)
        try:
            known = await self.node.known(entry)
        except NotFetched:
            async with aclosing(self._load(entry, trace)) as waiting:
                async for progress in waiting:
                    yield [progress]
            known = await self.node.known(entry)
        preparing = self.node.prepare(known, conversation)
        async with aclosing(preparing.waiting(self._tick_seconds)) as waiting:
            async for progress in waiting:
                yield [progress]
        prompts = await preparing.reply.wait()
        yield [UNDER_WAY]
        num_tokens = sum(len(prompt.ids) for prompt in prompts)
        trace.note(f"model {entry.id}: {num_tokens} prompt tokens")
        for _ in range(MAX_TRIES):
            answer = self.node.generate(known, conversation, prompts, trace)
            try:
                async with aclosing(answer) as batches:
                    async for batch in batches:
                        yield batch
                return
            except ModelGone:
                trace.note("the model was unloaded before the request was admitted")
            except NotLoaded:
                async with aclosing(self._load(entry, trace)) as waiting:
                    async for progress in waiting:
                        yield [progress]
        raise ServiceUnavailable(
            f"model {entry.id} was unloaded {MAX_TRIES} times while this request waited for it",
            retry_after=5,
        )

    async def count(self, conversation: Conversation) -> int:
        """The exact number of prompt tokens that `generate` would read; nothing is loaded for it."""
        entry = self._shelf.resolve(conversation.model)
        known = await self.node.known(entry)
        return await self.node.count(known, evolve(conversation, model=entry.id))

    async def _load(self, entry: CatalogueModel, trace: Trace) -> AsyncGenerator[Progress, None]:
        """Have the model loaded, once for all who ask."""
        if self.num_load_waiters >= self._fleet.max_load_waiters:
            raise Busy(
                f"{self.num_load_waiters} requests wait for models to load already", retry_after=5
            )
        began_at = trio.current_time()
        trace.note(f"model {entry.id} is not loaded: waiting for its load")
        self.num_load_waiters += 1
        try:
            async with aclosing(self._wait_for_load(entry)) as waiting:
                async for progress in waiting:
                    yield progress
        finally:
            self.num_load_waiters -= 1
            trace.load_seconds += trio.current_time() - began_at
        trace.note(f"loaded after {trace.load_seconds:.3f} s")

    async def _wait_for_load(self, entry: CatalogueModel) -> AsyncGenerator[Progress, None]:
        load = self.node.load(entry)
        deadline = trio.current_time() + self._fleet.load_wait_secs
        async with aclosing(load.reply.ticks(self._tick_seconds, deadline)) as ticks:
            async for _ in ticks:
                yield await self._load_progress(entry)
        if not load.reply.given:
            raise ServiceUnavailable(
                f"model {entry.id} is still loading after {self._fleet.load_wait_secs:.0f} s",
                retry_after=5,
            )
        await load.reply.wait()

    async def _load_progress(self, entry: CatalogueModel) -> Progress:
        state = (await self.node.status()).model(entry.id)
        if state is None:
            return Progress("loading")
        return Progress("loading", state.done_bytes, state.total_bytes)
