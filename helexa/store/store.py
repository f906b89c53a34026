"""The model store: sources made into directories that an engine loads, each whole or not at all.

Synchronous, for worker threads and commands; torch stays in a child process (`child`, `prepare`).
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store.assemble import Fetched, assemble_checkpoint, assemble_gguf
from helexa.store.failures import Unreachable, told_in_words
from helexa.store.fetch import fetch
from helexa.store.files import empty, flush_tree, hash_files
from helexa.store.layout import locked, locked_if_free, open_layout
from helexa.store.nodes import ALONE, Nodes
from helexa.store.progress import Progress, silent
from helexa.store.record import (
    LAST_USE,
    Manifest,
    Pin,
    StoredModel,
    check_unchanged,
    read_manifest,
    read_model,
    read_pin,
    write_pin,
    write_record,
)
from helexa.store.source import (
    NAME,
    Source,
    directory_name,
    name_of,
    parse_source,
    spelled_out,
    without_quant,
)
from helexa.store.space import Disk

Models: TypeAlias = list[StoredModel]  # inside the class, `list` is a method


class Store:
    """The models under one root; any number of threads and processes may use the same root."""

    def __init__(self, settings: Settings, root: Path, nodes: Nodes = ALONE) -> None:
        """Open the store, making it if absent; StoreError if it cannot be, or is a newer helexa's.

        `nodes` are those that models may be fetched from.
        """
        self._layout = open_layout(root)
        self._disk = Disk(root, settings)
        self._nodes = nodes

    def find(self, source_or_name: str) -> StoredModel | None:
        """The finished model, or None; StoreError if its files changed since it was added."""
        model = self.recorded(source_or_name)
        if model:
            with told_in_words(model.name, self._layout.root):
                check_unchanged(model.path)
        return model

    def recorded(self, source_or_name: str) -> StoredModel | None:
        """The finished model as its record has it, or None; its files are not looked at.

        StoreError if the store cannot be read.
        """
        name = self.name_of(source_or_name)
        if name is None:
            return None
        with told_in_words(name, self._layout.root):
            return read_model(self._layout.model(name)) or self._whole(source_or_name)

    def _whole(self, source: str) -> StoredModel | None:
        """Of a repository that was to have GGUF files to choose from: what is here of it if it has none."""
        whole = without_quant(source)
        found = self.recorded(whole) if whole else None
        return found if found and not any(found.path.glob("*.gguf")) else None

    def manifest(self, source_or_name: str) -> Manifest | None:
        """The files of the finished model, or None; StoreError if they changed since it was added."""
        model = self.find(source_or_name)
        if model is None:
            return None
        with told_in_words(model.name, self._layout.root):
            return read_manifest(model.path)

    def at_home(self, source: str) -> str:
        return self._nodes.at_home(source)

    def name_of(self, source_or_name: str) -> str | None:
        """The name that a source's model has here, or the name itself; None if it is neither."""
        return name_of(self.at_home(source_or_name))

    def names(self) -> Iterator[str]:
        """The names of the finished models: cheap, as only a directory is read."""
        return (path.name for path in self._layout.models.iterdir() if path.is_dir())

    def list(self) -> Models:
        """Every finished model, by name."""
        directories = sorted(path for path in self._layout.models.iterdir() if path.is_dir())
        found = (read_model(path) for path in directories)
        return [model for model in found if model]

    def add(
        self, source: str, progress: Progress | None = None, *, accept_change: bool = False
    ) -> StoredModel:
        """Fetch and prepare `source` (`org/name` is a hub's), unless it is there.

        Waits while another process does it.
        A source whose files differ from its first add is refused unless `accept_change`.
        Every failure is a StoreError, and leaves at most a download that the next add goes on with.
        """
        wanted = parse_source(spelled_out(self.at_home(source)))
        tell = progress or silent
        name = directory_name(wanted)
        root = self._layout.root
        with (
            told_in_words(str(wanted), root),
            locked(root, name, lambda: tell("wait", 0, 0)),
        ):
            return self.find(str(wanted)) or self._make(wanted, name, tell, accept_change)

    def _make(
        self, source: Source, name: str, progress: Progress, accept_change: bool
    ) -> StoredModel:
        partial = self._layout.partial(name)
        directory = empty(partial / "model")
        with cleared_unless_resumable(partial):
            fetched = fetch(source, partial, self._disk, self._nodes, progress)
            pin = self._checked_pin(source, fetched, progress, accept_change)
            if fetched.weights == "gguf":
                ((file_name, file),) = fetched.files.items()
                weights = assemble_gguf(file, file_name, directory, progress)
            else:
                weights = assemble_checkpoint(fetched, directory, progress)
            write_record(directory, str(source), pin, weights)
            flush_tree(directory)
            self._keep_pin(source, pin)
            target = self._layout.model(name)
            shutil.rmtree(target, ignore_errors=True)  # a damaged one: `find` saw no record in it
            directory.rename(target)
        model = read_model(target)
        if model is None:
            raise StoreError(f"{name} was removed while it was added.")
        return model

    def _checked_pin(
        self, source: Source, fetched: Fetched, progress: Progress, accept_change: bool
    ) -> Pin:
        """What this add found; StoreError if the source's own hashes or its first add differ."""
        pin = Pin(fetched.commit, hash_files(fetched.files, progress))
        for name, digest in fetched.hashes.items():
            if pin.files[name] != digest:
                raise StoreError(f"{name} of {source} arrived corrupt: add it again.")
        first = read_pin(self._layout.pins, str(source))
        difference = first.difference(pin) if first else None
        if difference and not accept_change:
            raise StoreError(
                f"{source} is not what it was when it was first added: {difference}. "
                "If that is meant, add it with --accept-change."
            )
        return pin

    def _keep_pin(self, source: Source, pin: Pin) -> None:
        with locked(self._layout.root, "pins"):
            write_pin(self._layout.pins, str(source), pin)

    def touch(self, name: str) -> None:
        """Note that the model is used now."""
        if NAME.fullmatch(name) and self._layout.model(name).is_dir():
            (self._layout.model(name) / LAST_USE).touch(mode=0o600)

    def remove(self, name: str) -> None:
        """Remove the model; its pin stays, so that the source is held to it when added again.

        StoreError if there is none.  Files that a running engine has open stay until it ends.
        """
        root, path = self._layout.root, self._layout.model(name)
        if not NAME.fullmatch(name) or not path.is_dir():
            raise StoreError(f"The store holds no model {name[:200]!r}.")
        with told_in_words(name, root), locked(root, name):
            aside = empty(self._layout.partial(name)) / "model"
            path.rename(aside)
            shutil.rmtree(aside.parent)

    def prune(self, needed: Collection[str], dry_run: bool) -> Models:
        """Remove the models that no source or name in `needed` names, and what dead adds left.

        Returns the models that are removed, or would be.
        """
        names = {self.name_of(text) for text in needed}
        unneeded = [model for model in self.list() if model.name not in names]
        if not dry_run:
            for model in unneeded:
                self.remove(model.name)
            self._clear_partials()
        return unneeded

    def _clear_partials(self) -> None:
        for path in self._layout.partials.iterdir():
            with locked_if_free(self._layout.root, path.name) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def cleared_unless_resumable(partial: Path) -> Iterator[None]:
    """Remove `partial` at the end, but keep a download that the next add can go on with."""
    resumable = False
    try:
        yield
    except (Unreachable, KeyboardInterrupt):
        resumable = (partial / "download").is_dir()
        raise
    finally:
        leftovers = [partial / "model", partial / "check"] if resumable else [partial]
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
