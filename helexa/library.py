"""The models whose files this host has: the store and the tokenizers, in worker threads.

Reading files, rendering templates and tokenising all block, so none of it runs in Trio's thread.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import define, field

from helexa import logs
from helexa.config.schema import Limits
from helexa.conversation import Conversation, Sampling
from helexa.errors import ServiceUnavailable
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.known import Known, Size
from helexa.fleet.limits import architecture_limit
from helexa.fleet.sampling import model_defaults
from helexa.store import Store, StoredModel
from helexa.store.facts import ModelFiles, read_facts
from helexa.text.answer import AnswerReader
from helexa.text.prompt import Prompt, Prompter

T = TypeVar("T")

MAX_THREADS = 4  # of rendering and tokenising at once

log = logs.get("helexa.library")


@define(eq=False)
class Library:
    _store: Store
    _limits: Limits
    _known: dict[CatalogueModel, Known] = field(factory=dict, init=False)
    _threads: trio.CapacityLimiter = field(
        factory=lambda: trio.CapacityLimiter(MAX_THREADS), init=False
    )

    async def known(self, entry: CatalogueModel) -> Known:
        """What the entry's files say; ServiceUnavailable if this host does not have them."""
        if entry not in self._known:
            self._known[entry] = await self._run(self._study, entry)
        return self._known[entry]

    async def prompt(self, known: Known, conversation: Conversation) -> Prompt:
        return await self._run(known.prompt, conversation)

    async def fetch(self, entry: CatalogueModel) -> None:
        """Have the entry's files in the store, downloading them if they are not."""
        await self.add(entry.source)

    async def add(self, source: str) -> StoredModel:
        """A download that nobody waits for any more goes on by itself, and ends with the process."""
        return await trio.to_thread.run_sync(
            self._store.add, source, log_progress(source), abandon_on_cancel=True
        )

    async def find(self, name: str) -> StoredModel | None:
        return await self._run(self._store.find, name)

    async def touch(self, entry: CatalogueModel) -> None:
        """Remember that the model was used."""
        stored = await self.find(entry.source)
        if stored is not None:
            await self._run(self._store.touch, stored.name)

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        return await trio.to_thread.run_sync(
            work, *args, limiter=self._threads, abandon_on_cancel=True
        )

    def _study(self, entry: CatalogueModel) -> Known:
        stored = self._store.find(entry.source)
        if stored is None:
            raise ServiceUnavailable(
                f"The files of model {entry.id} are not on this host. "
                f"Run `helexa models add {entry.id}` there."
            )
        files, prompter = read_facts(stored.path), Prompter.load(stored.path)
        return Known(
            entry=entry,
            path=stored.path,
            size=size_of(files),
            limit=architecture_limit(
                files.facts.max_position_embeddings,
                max_context=entry.max_context,
                output_reserve=entry.output_reserve,
                max_prompt_tokens=self._limits.max_prompt_tokens,
            ),
            stop_ids=prompter.stop_ids,
            defaults=model_defaults(generation_config(stored.path)),
            tool_call=prompter.reads_tools,
            reasoning=prompter.reads_thinking,
            prompt=prompter.prompt,
            reader=partial(make_reader, prompter),
        )


def make_reader(
    prompter: Prompter, choice: int, sampling: Sampling, prompt: Prompt
) -> AnswerReader:
    return AnswerReader(choice, prompter.tokenizer, sampling.stop, continues=prompt.continues)


def size_of(files: ModelFiles) -> Size:
    facts, layers = files.facts, files.facts.layers
    return Size(
        files.parameters,
        elements_per_token=2 * facts.kv_heads * facts.head_dim,
        full_layers=layers.full,
        sliding_layers=layers.sliding,
        window=layers.window,
    )


def generation_config(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads((path / "generation_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def log_progress(source: str) -> Callable[[str, int, int], None]:
    """Progress as log lines: one per phase, and one per tenth of a download."""
    told: dict[str, int] = {}

    def progress(phase: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if told.get(phase) != tenth:
            told[phase] = tenth
            log.info("adding model", source=source, phase=phase, done=done, total=total)

    return progress
