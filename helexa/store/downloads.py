"""Files of one version of a repository: read ahead, taken from a cache, or downloaded and resumed.

The download is our own because huggingface_hub (2.4) starts a file over after an interruption.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from helexa.errors import StoreError
from helexa.store.files import private
from helexa.store.progress import Progress

SILENCE_SECONDS = 30.0


class Answer(Protocol):
    """The response to a GET, 200 or 206, its body not yet read."""

    @property
    def status_code(self) -> int: ...
    def iter_raw(self) -> Iterator[bytes]: ...


class Repository(Protocol):
    """One version of a model's files, wherever they are.

    `where` names it to people, `commit` tells the version from others; `sizes` (bytes) and `hashes`
    (SHA-256, as far as they are told) are by file name.
    """

    @property
    def where(self) -> str: ...
    @property
    def commit(self) -> str: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def hashes(self) -> Mapping[str, str]: ...
    def stream(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Answer]:
        """GET the file; raises what its client raises, but no OSError."""

    def told(self, what: str) -> AbstractContextManager[None]:
        """Turn what its client raises over `what` into one sentence, Unreachable or StoreError."""

    def cached(self, name: str) -> Path | None:
        """The file, where this machine has it already."""


class Downloads:
    """Several files of one repository, from its cache or downloaded, with one progress."""

    def __init__(
        self, repository: Repository, names: list[str], directory: Path, progress: Progress
    ) -> None:
        self._repository, self._progress = repository, progress
        self._directory = of_commit(directory, repository.commit)
        cached = {name: repository.cached(name) for name in names}
        self._cached = {name: path for name, path in cached.items() if path}
        self._missing = [name for name in names if name not in self._cached]
        self._total = sum(repository.sizes[name] for name in self._missing)
        self._before = 0

    def missing_bytes(self) -> int:
        """What is still to be downloaded; what an earlier try got counts as there."""
        targets = [self._directory / name for name in self._missing]
        return self._total - sum(max(size_of(path), size_of(part_of(path))) for path in targets)

    def get(self, name: str) -> Path:
        if path := self._cached.get(name):
            return path
        target = self._directory / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._repository.told(f"{name} of {self._repository.where}"):
            if not target.exists():
                self._download(name, part_of(target))
                part_of(target).rename(target)
        self._before += self._repository.sizes[name]
        return target

    def _download(self, name: str, part: Path) -> None:
        """Go on where the last try ended, as long as every try gets further."""
        size = self._repository.sizes[name]
        part.touch(mode=0o600)
        while (had := size_of(part)) < size:
            try:
                self._append(name, part, had, size)
            except (OSError, StoreError):
                raise
            except Exception:  # whatever the repository's client calls a connection that broke
                if size_of(part) <= had:
                    raise

    def _append(self, name: str, part: Path, had: int, size: int) -> None:
        headers = {"Range": f"bytes={had}-"} if had else {}
        with self._repository.stream(name, headers) as response:
            resumes = response.status_code == 206
            with open(part, "ab" if resumes else "wb", opener=private) as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    if file.tell() > size:
                        raise StoreError(
                            f"{self._repository.where} sends more of {name} than the {size} bytes "
                            "it lists."
                        )
                    self._progress("download", self._before + file.tell(), self._total)
        if size_of(part) != size:
            raise EndedEarly("the connection ended early")


class EndedEarly(Exception):
    """The connection was closed in good order, but before the file's end."""


def of_commit(directory: Path, commit: str) -> Path:
    """Where files of `commit` lie; what was begun of other commits is dropped."""
    for other in directory.glob("*"):
        if other.name != commit:
            shutil.rmtree(other)
    return directory / commit


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def beginning(repository: Repository, name: str) -> Iterator[BinaryIO]:
    """The remote file as a stream that is read forward only, and closed long before its end."""
    with repository.stream(name, {}) as response:
        yield cast(BinaryIO, Forward(response.iter_raw()))


class Forward(RawIOBase):
    """Chunks of bytes as a file that can only be read on."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, bytearray()

    def read(self, size: int = -1) -> bytes:
        while len(self._held) < size and (chunk := next(self._chunks, None)) is not None:
            self._held += chunk
        data = bytes(self._held[:size])
        del self._held[:size]
        return data
