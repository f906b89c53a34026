"""Files of one commit on a hub: read ahead, taken from the hub cache, or downloaded and resumed.

The download is our own because huggingface_hub (2.4) starts a file over after an interruption.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from attrs import field, frozen
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from helexa.errors import StoreError
from helexa.store.failures import Unreachable, plain
from helexa.store.files import private, regular_file
from helexa.store.progress import Progress

SILENCE_SECONDS = 30.0


@frozen
class Repository:
    """One commit of a repository; `sizes` (bytes) and `hashes` (SHA-256, large files) by file name."""

    id: str
    commit: str
    sizes: dict[str, int]
    hashes: dict[str, str]
    token: str | None = field(default=None, repr=False)

    @contextmanager
    def stream(self, name: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The response to a GET of the file, its body not yet read."""
        endpoint = os.environ.get("HF_ENDPOINT")
        url = hf_hub_url(self.id, name, revision=self.commit, endpoint=endpoint)
        known = build_hf_headers(token=self.token)
        asked = {**known, "Accept-Encoding": "identity", **headers}
        with get_session().stream("GET", url, headers=asked, timeout=SILENCE_SECONDS) as response:
            hf_raise_for_status(response)
            yield response


class Downloads:
    """Several files of one repository, from the hub cache or downloaded, with one progress."""

    def __init__(
        self, repository: Repository, names: list[str], directory: Path, progress: Progress
    ) -> None:
        self._repository, self._progress = repository, progress
        self._directory = of_commit(directory, repository.commit)
        cached = {name: cached_file(repository, name) for name in names}
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
        with told_by_hub(f"{name} of hf:{self._repository.id}"):
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
            except Exception:  # whatever the hub's client calls a connection that broke
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
                            f"The hub sends more of {name} than the {size} bytes it lists."
                        )
                    self._progress("download", self._before + file.tell(), self._total)
        if size_of(part) != size:
            raise EOFError("the connection ended early")


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


def cached_file(repository: Repository, name: str) -> Path | None:
    found = try_to_load_from_cache(
        repository.id, name, revision=repository.commit, cache_dir=constants.HF_HUB_CACHE
    )
    if not isinstance(found, str):
        return None
    path = Path(found)
    depth = len(Path(name).parts)
    return regular_file(path, within=path.parents[depth - 1])


@contextmanager
def remote(repository: Repository, name: str) -> Iterator[BinaryIO]:
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


@contextmanager
def told_by_hub(what: str) -> Iterator[None]:
    """Turn whatever huggingface_hub raises over `what` into one sentence."""
    try:
        yield
    except StoreError:
        raise
    except GatedRepoError:
        raise StoreError(
            f"{what} is gated: accept its terms on the hub and name a token in [store] hf_token_file."
        ) from None
    except RepositoryNotFoundError:
        raise StoreError(
            f"{what} does not exist on the hub, or needs [store] hf_token_file."
        ) from None
    except RevisionNotFoundError:
        raise StoreError(f"{what} names a revision that the hub does not have.") from None
    except HfHubHTTPError as error:
        raise Unreachable(f"The hub refused {what}: {plain(str(error))}.") from None
    except Exception as error:  # whatever HTTP library the hub's client uses has its own tree
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = plain(str(error)) or type(error).__name__
        raise Unreachable(f"{what} could not be downloaded: {reason}.") from None
