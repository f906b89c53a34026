"""The models whose files this host has: the store and the tokenizers, in worker threads.

Reading files, rendering templates and tokenising all block, so none of it runs in Trio's thread.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import define, evolve, field, frozen

from helexa import logs
from helexa.config.schema import Limits
from helexa.conversation import Conversation, TokenLogprob
from helexa.errors import ServiceUnavailable
from helexa.fleet.catalogue import (
    CatalogueModel,
    SamplingDefaults,
    is_directory,
)
from helexa.fleet.fit import size_of
from helexa.fleet.known import Known, NotFetched, Scores, Size, too_long
from helexa.fleet.limits import Terms
from helexa.fleet.sampling import model_defaults
from helexa.fleet.script import WINDOW_TOKENS
from helexa.prompters import Files, LatePrompter, Prompters
from helexa.prompts import Prompts
from helexa.renderers import Renderers
from helexa.scripts import WEIGHTLESS, scripted, tokenizer_in
from helexa.store import Store, StoredModel
from helexa.store.facts import read_facts
from helexa.store.failures import told_in_words
from helexa.store.progress import Progress, silent
from helexa.store.record import Manifest
from helexa.text.answer import AnswerReader
from helexa.text.files import ChatFormat
from helexa.text.length import PromptTooLong
from helexa.text.markup import Markup
from helexa.text.prompt import Prompt
from helexa.text.prompter import constrained
from helexa.text.scores import logprob_of

T = TypeVar("T")

MAX_READS = 4  # of the store's small files
MAX_ADDS = 8
RETRY_AFTER_SECONDS = 30.0
MOST_COUNTED_TOKENS = 256 * 1024  # also where the model's own limit is less

log = logs.get("helexa.library")


@frozen(eq=False)
class Studied:
    """What does not change as long as a model's files do not; small."""

    added_at: float
    size: Size
    max_position_embeddings: int
    defaults: SamplingDefaults
    format: ChatFormat


@define(eq=False)
class Library:
    _store: Store
    _limits: Limits
    _renderers: Renderers
    _studied: dict[Path, Studied] = field(factory=dict, init=False)
    _tokenizers: dict[Path, Studied] = field(factory=dict, init=False)  # of script models
    _prompters: Prompters = field(factory=Prompters, init=False)
    _prompts: Prompts = field(init=False)
    _reads: trio.CapacityLimiter = field(
        factory=partial(trio.CapacityLimiter, MAX_READS), init=False
    )
    _adds: trio.CapacityLimiter = field(factory=partial(trio.CapacityLimiter, MAX_ADDS), init=False)

    @_prompts.default
    def _make_prompts(self) -> Prompts:
        return Prompts(self._renderers)

    async def known(self, entry: CatalogueModel) -> Known:
        """What the entry's files say; cheap once they were read.

        ServiceUnavailable if this host does not have them: NotFetched if the entry says that a request
        may bring them in.  StoreError if they are not what was added.
        """
        if entry.is_script:
            return await self._known_script(entry)
        stored = await self._read(self._store.recorded, entry.wanted)
        if stored is None:
            raise missing(entry)
        studied = self._studied.get(stored.path)
        if studied is None or studied.added_at != stored.added_at:
            studied = self._studied[stored.path] = await self._read(self._study, stored)
        files = (stored.path, stored.added_at)
        prompter = self._prompters.of(files, studied.format)
        return known_of(entry, files, studied, prompter, self._limits)

    async def _known_script(self, entry: CatalogueModel) -> Known:
        """A script model reads with the tokenizer of another; of files it has its rules alone."""
        path, added_at = files = await self._tokenizer(entry)
        studied = self._tokenizers.get(path)
        if studied is None or studied.added_at != added_at:
            studied = self._tokenizers[path] = await self._read(study_tokenizer, files)
        prompter = self._prompters.of(files, studied.format)
        known = known_of(entry, files, studied, prompter, self._limits)
        return await self._read(partial(scripted, known), prompter)

    async def _tokenizer(self, entry: CatalogueModel) -> Files:
        if is_directory(entry.wanted):
            return await self._read(tokenizer_in, entry.wanted)
        stored = await self._read(self._store.recorded, entry.wanted)
        if stored is None:
            raise missing(entry)
        return stored.path, stored.added_at

    async def prompts(
        self, known: Known, conversation: Conversation, salt: str = ""
    ) -> tuple[Prompt, ...]:
        """One prompt for the messages of a conversation, or one for each of its texts.

        Those of one `salt` share what was made.
        Raises ContextLengthExceeded early; a prompt that is only a little too long is returned.
        """
        made = await self._made(known, conversation, known.limit.input, salt)
        return await self._prompts.work(conversation, known.finish, conversation, made)

    async def count(self, known: Known, conversation: Conversation, salt: str = "") -> int:
        """The tokens of the prompts, also if they are too long for the model: not if hopelessly."""
        most = max(known.limit.context, MOST_COUNTED_TOKENS)
        made = await self._made(known, conversation, most, salt)
        return sum(len(prompt.ids) for prompt in made)

    async def _made(
        self, known: Known, conversation: Conversation, most_tokens: int, salt: str
    ) -> tuple[Prompt, ...]:
        files = (known.path, known.added_at)
        prompter = await self._prompters.get(files)
        try:
            return await self._prompts.make(prompter, files, conversation, most_tokens, salt)
        except PromptTooLong as error:
            param = "prompt" if conversation.texts else "messages"
            raise too_long(known.limit, error.at_least, at_least=True, param=param) from None

    async def fetch(self, entry: CatalogueModel, progress: Progress | None = None) -> None:
        """Have the entry's files in the store, downloading them if they are not.  StoreError.

        `progress` is called in the worker thread, often, with the phase and the bytes done and in all
        (0 if unknown); also after the caller was cancelled, as the download then goes on by itself.
        """
        if is_directory(entry.wanted):
            return
        if entry.can_be_fetched:
            await self.add(entry.wanted, progress)
        elif await self.find(entry.wanted) is None:
            raise missing(entry)

    async def add(self, source: str, progress: Progress | None = None) -> StoredModel:
        """A download that nobody waits for any more goes on by itself, and ends with the process."""
        return await run(
            self._adds, self._store.add, source, progress_of(source, progress or silent)
        )

    async def find(self, name: str) -> StoredModel | None:
        return await self._read(self._store.find, name)

    def at_home(self, source: str) -> str:
        """What a source means on this node (`store.source.at_home`)."""
        return self._store.at_home(source)

    async def manifest(self, entry: CatalogueModel) -> Manifest | None:
        """The entry's files as the store has them, for other nodes; None if it has none."""
        return await self._read(self._store.manifest, entry.wanted)

    async def stored(self) -> frozenset[str]:
        """The names of the models in the store."""
        return frozenset(await run(self._reads, self._store.names))

    async def touch(self, entry: CatalogueModel) -> None:
        """The model was loaded: remember its use.

        Never raises: a store that cannot be written is no reason to lose a model that runs.
        """
        try:
            await self._read(self._note_use, entry)
        except Exception as error:
            log.warning("use of the model not noted", model=entry.id, reason=str(error))

    async def _read(self, work: Callable[[Any], T], argument: Any) -> T:
        return await run(self._reads, work, argument)

    def _note_use(self, entry: CatalogueModel) -> None:
        stored = self._store.recorded(entry.wanted)
        if stored is not None:
            self._store.touch(stored.name)

    def _study(self, stored: StoredModel) -> Studied:
        with told_in_words(stored.name, stored.path):
            self._store.find(stored.name)  # StoreError if a file is not what it was
            files = read_facts(stored.path)
            return Studied(
                stored.added_at,
                size_of(files),
                files.facts.max_position_embeddings,
                model_defaults(generation_config(stored.path)),
                ChatFormat.load(stored.path),
            )


def study_tokenizer(files: Files) -> Studied:
    """What a script model takes of another's files: no weights, and no window either."""
    path, added_at = files
    with told_in_words(path.name, path):
        return Studied(added_at, WEIGHTLESS, 0, SamplingDefaults(), ChatFormat.load(path))


async def run(limiter: trio.CapacityLimiter, work: Callable[..., T], *args: Any) -> T:
    return await trio.to_thread.run_sync(work, *args, limiter=limiter, abandon_on_cancel=True)


def missing(entry: CatalogueModel) -> ServiceUnavailable:
    """Why the model cannot be had now, and what to do about it."""
    if entry.is_script and not entry.can_be_fetched:
        return ServiceUnavailable(
            f"The store has no model {entry.wanted!r}, which the tokenizer of {entry.id} should be."
        )
    if not entry.can_be_fetched:
        return ServiceUnavailable(
            f"Model {entry.id} has no source in the catalogue, and the store has nothing under its id: "
            "give the entry a source."
        )
    kind = NotFetched if entry.download == "on_demand" else ServiceUnavailable
    return kind(
        f"The files of model {entry.id} are not on this host. "
        f"`helexa-ctl load {entry.id}` there fetches and loads it.",
        retry_after=RETRY_AFTER_SECONDS,
    )


def known_of(
    entry: CatalogueModel,
    files: Files,
    studied: Studied,
    prompter: LatePrompter,
    limits: Limits,
) -> Known:
    path, added_at = files
    markup = markup_of(entry, studied.format)
    terms = Terms(
        positions=studied.max_position_embeddings or entry.max_context or WINDOW_TOKENS,
        max_context=entry.max_context,
        output_reserve=entry.output_reserve,
        max_prompt_tokens=limits.max_prompt_tokens,
        kv_budget_mb=entry.kv_budget_mb,
        prefill_limit_seconds=entry.prefill_limit_seconds,
        kv_dtype=entry.kv_dtype,
    )
    return Known(
        entry=entry,
        path=path,
        size=studied.size,
        terms=terms,
        stop_ids=studied.format.stop_ids,
        defaults=studied.defaults,
        tool_call=studied.format.reads_tools,
        reasoning=studied.format.reads_thinking,
        finish=partial(finish, prompter, markup),
        reader=partial(make_reader, prompter, markup),
        score=partial(score, prompter),
        added_at=added_at,
    )


def markup_of(entry: CatalogueModel, format: ChatFormat) -> Markup:
    """As the model's files have it, unless the entry knows better."""
    return evolve(format.markup, tools=entry.tool_parser) if entry.tool_parser else format.markup


# Of these three the tokenizer is there since the prompt was made.


def finish(
    prompter: LatePrompter, markup: Markup, conversation: Conversation, prompts: tuple[Prompt, ...]
) -> tuple[Prompt, ...]:
    return constrained(prompter.get().tokenizer, markup, conversation, prompts)


def make_reader(
    prompter: LatePrompter, markup: Markup, choice: int, conversation: Conversation, prompt: Prompt
) -> AnswerReader:
    return AnswerReader(choice, prompter.get().tokenizer, conversation, prompt, markup)


def score(prompter: LatePrompter, tokens: Scores) -> tuple[TokenLogprob, ...]:
    tokenizer = prompter.get().tokenizer
    return tuple(logprob_of(tokenizer, *token) for token in tokens)


def generation_config(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads((path / "generation_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def progress_of(source: str, tell: Progress) -> Progress:
    """Progress as log lines, one per phase and one per tenth of a download, and all of it to `tell`."""
    told: dict[str, int] = {}

    def progress(phase: str, done: int, total: int, /) -> None:
        tell(phase, done, total)
        tenth = 10 * done // total if total else 0
        if told.get(phase) != tenth:
            told[phase] = tenth
            log.info("adding model", source=source, phase=phase, done=done, total=total)

    return progress
