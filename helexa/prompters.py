"""The prompters of this host's models, each made when it is first needed; the library owns them.

A tokenizer takes up to 100 MB and a second, so that a list of models must not make one of each.
"""

from collections import OrderedDict
from pathlib import Path
from weakref import WeakValueDictionary

import trio
from attrs import define, field

from helexa.text.files import ChatFormat
from helexa.text.prompter import Prompter

MOST_UNUSED = 8

Files = tuple[Path, float]  # a model's directory, and when it was added: other files, other tokens


@define(eq=False)
class LatePrompter:
    path: Path
    format: ChatFormat
    one_at_a_time: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _made: Prompter | None = field(default=None, init=False)

    @property
    def is_made(self) -> bool:
        return self._made is not None

    def get(self) -> Prompter:
        """Slow the first time: a worker thread's work.  StoreError."""
        if self._made is None:
            self._made = Prompter.load(self.path, self.format)
        return self._made


@define(eq=False)
class Prompters:
    """One for all who ask for the same files.

    Those used last are kept, and those that somebody holds: a loaded model does, by its Known.
    """

    _held: WeakValueDictionary[Files, LatePrompter] = field(factory=WeakValueDictionary, init=False)
    _recent: OrderedDict[Files, LatePrompter] = field(factory=OrderedDict, init=False)

    def of(self, files: Files, format: ChatFormat) -> LatePrompter:
        found = self._held.get(files)
        if found is None:
            found = self._held[files] = LatePrompter(files[0], format)
        return found

    async def get(self, files: Files) -> Prompter:
        """The prompter of `files`, which the caller holds, made if it is not there.  StoreError."""
        prompter = self._recent[files] = self._held[files]
        self._recent.move_to_end(files)
        if len(self._recent) > MOST_UNUSED:
            self._recent.popitem(last=False)
        if not prompter.is_made:
            await trio.to_thread.run_sync(
                prompter.get, limiter=prompter.one_at_a_time, abandon_on_cancel=True
            )
        return prompter.get()
