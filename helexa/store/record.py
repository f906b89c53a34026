"""What the store writes down: a model's record (`helexa.json`) and the pins of first adds."""

import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from attrs import asdict, frozen

from helexa.errors import StoreError
from helexa.replacing import replace
from helexa.store.files import hash_files, stamp
from helexa.store.progress import silent

RECORD = "helexa.json"
LAST_USE = "last_used"  # an empty file whose time of change is the last use

Weights: TypeAlias = Literal["safetensors", "gguf"]


@frozen
class StoredModel:
    """A finished model.

    `path` holds config.json, generation_config.json, tokenizer.json, a chat template if the source
    has one, and the weights.  `weights` says what a loader reads: `weight_files`, which are
    safetensors, or one GGUF.  A small GGUF has its converted `model.safetensors` beside it, and is
    then "safetensors".  Times are in seconds since the epoch, `bytes` counts linked files too.
    """

    name: str
    source: str
    path: Path
    weights: Weights
    weight_files: tuple[Path, ...]
    bytes: int
    added_at: float
    last_used: float | None


@frozen
class Pin:
    """What the first add of a source found: its commit, if it has one, and each file's SHA-256."""

    commit: str | None
    files: dict[str, str]

    def difference(self, found: "Pin") -> str | None:
        """How what was found later differs, in words; None if it does not."""
        names = sorted(self.files.keys() | found.files.keys())
        changed = [n for n in names if self.files.get(n) != found.files.get(n)]
        if changed:
            return f"{changed[0]} is another file"
        return f"its commit is now {found.commit}" if self.commit != found.commit else None


@frozen
class StoredFile:
    """A file as it was when its model was added; `mtime_ns` is when it had changed last."""

    bytes: int
    mtime_ns: int
    sha256: str


@frozen
class Manifest:
    """The files of a finished model, all in `path` itself."""

    path: Path
    source: str
    files: Mapping[str, StoredFile]

    def open(self, name: str) -> BinaryIO:
        """The file for reading; StoreError unless it is the one that was added.

        Only names of the manifest are opened, and a link only where it leads to that very file.
        """
        expected, path = self.files[name], self.path / name
        file = path.open("rb")
        found = os.fstat(file.fileno())
        is_same = (found.st_size, found.st_mtime_ns) == (expected.bytes, expected.mtime_ns)
        if not (is_same and stat.S_ISREG(found.st_mode)):
            file.close()
            raise changed(self.path, self.source, name)
        return file


def read_manifest(directory: Path) -> Manifest:
    record = read_object(directory / RECORD)
    files = {name: StoredFile(**file) for name, file in record["files"].items()}
    return Manifest(directory, record["source"], files)


def read_pin(file: Path, source: str) -> Pin | None:
    found = read_object(file).get(source) if file.exists() else None
    return Pin(**found) if found else None


def write_pin(file: Path, source: str, pin: Pin) -> None:
    pins = read_object(file) if file.exists() else {}
    write_object(file, {**pins, source: asdict(pin)})


def write_record(directory: Path, source: str, pin: Pin, weights: Weights) -> None:
    """Record the finished `directory`; hashes already in `pin` are not computed again."""
    paths = {path.name: path for path in sorted(directory.iterdir())}
    linked = {name: digest for name, digest in pin.files.items() if name in paths}
    hashes = linked | hash_files({n: p for n, p in paths.items() if n not in linked}, silent)
    record = {
        "source": source,
        "commit": pin.commit,
        "weights": weights,
        "weight_files": [name for name in paths if name.endswith(f".{weights}")],
        "files": {name: entry(path, hashes[name]) for name, path in paths.items()},
        "added_at": time.time(),
    }
    write_object(directory / RECORD, record)


def entry(path: Path, digest: str) -> dict[str, Any]:
    size, changed = stamp(path)
    return {"bytes": size, "mtime_ns": changed, "sha256": digest}


def read_model(directory: Path) -> StoredModel | None:
    """The model in `directory`, or None if there is none."""
    try:
        record = read_object(directory / RECORD)
    except FileNotFoundError:
        return None
    used = directory / LAST_USE
    return StoredModel(
        name=directory.name,
        source=record["source"],
        path=directory,
        weights=record["weights"],
        weight_files=tuple(directory / name for name in record["weight_files"]),
        bytes=sum(file["bytes"] for file in record["files"].values()),
        added_at=record["added_at"],
        last_used=used.stat().st_mtime if used.exists() else None,
    )


def check_unchanged(directory: Path) -> None:
    """StoreError if a file is not what it was when the model was added.

    Size and time of change decide; a file whose time alone moved is hashed again, once.
    """
    record = read_object(directory / RECORD)
    files: dict[str, dict[str, Any]] = record["files"]
    doubtful = {name: directory / name for name in files if not looks_same(directory, name, files)}
    if not doubtful:
        return
    for name, path in doubtful.items():
        if not path.is_file() or path.stat().st_size != files[name]["bytes"]:
            raise changed(directory, record["source"], name)
    for name, digest in hash_files(doubtful, silent).items():
        if digest != files[name]["sha256"]:
            raise changed(directory, record["source"], name)
        files[name] = entry(directory / name, digest)
    write_object(directory / RECORD, {**record, "files": files})


def looks_same(directory: Path, name: str, files: Mapping[str, Mapping[str, Any]]) -> bool:
    try:
        return stamp(directory / name) == (files[name]["bytes"], files[name]["mtime_ns"])
    except OSError:
        return False


def changed(directory: Path, source: str, name: str) -> StoreError:
    return StoreError(
        f"{name} of {source} has changed or vanished since it was added: "
        f"remove the model (helexa models rm {directory.name}) and add it again."
    )


def read_object(file: Path) -> Mapping[str, Any]:
    text = file.read_text()
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StoreError(f"{file}, a file of the model store's own, is damaged: remove it.")
    return value


def write_object(file: Path, value: Mapping[str, Any]) -> None:
    replace(file, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
