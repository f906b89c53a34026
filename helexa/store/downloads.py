"""Files of one commit on a hub: read ahead, taken from the hub cache, or downloaded and resumed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from attrs import field, frozen
from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
from tqdm.auto import tqdm

from helexa.errors import StoreError
from helexa.store.failures import Unreachable, plain
from helexa.store.files import regular_file
from helexa.store.progress import Progress


@frozen
class Repository:
    """One commit of a repository; `sizes` (bytes) and `hashes` (SHA-256, large files) by file name."""

    id: str
    commit: str
    sizes: dict[str, int]
    hashes: dict[str, str]
    token: str | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str | None:
        return os.environ.get("HF_ENDPOINT")


class Downloads:
    """Several files of one repository, taken from the hub cache or downloaded, with one progress."""

    def __init__(
        self, repository: Repository, names: list[str], directory: Path, progress: Progress
    ) -> None:
        self._repository, self._directory, self._progress = repository, directory, progress
        cached = {name: cached_file(repository, name) for name in names}
        self._cached = {name: path for name, path in cached.items() if path}
        self._total = sum(repository.sizes[n] for n in names if n not in self._cached)
        self._done = 0

    def missing_bytes(self) -> int:
        """What is still to be downloaded; a part from an earlier try counts as there."""
        there = sum(p.stat().st_size for p in self._directory.rglob("*") if p.is_file())
        return max(self._total - there, 0)

    def get(self, name: str) -> Path:
        if path := self._cached.get(name):
            return path
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        repository = self._repository
        with told_by_hub(f"{name} of hf:{repository.id}"):
            path = hf_hub_download(
                repository.id,
                name,
                revision=repository.commit,
                local_dir=self._directory,
                token=repository.token,
                endpoint=repository.endpoint,
                tqdm_class=self._bar(),
            )
        self._done += repository.sizes[name]
        return regular_file(Path(path), within=self._directory)

    def _bar(self) -> type[Any]:
        before, total, progress = self._done, self._total, self._progress

        class Bar(tqdm):  # type: ignore[misc]
            """Tells the progress instead of drawing it."""

            def __init__(self, *args: Any, initial: int = 0, **options: Any) -> None:
                super().__init__(*args, **{**options, "disable": True})
                self.done = before + initial

            def update(self, n: float | None = 1) -> None:
                self.done += int(n or 0)
                progress("download", self.done, total)

        return Bar


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
    url = hf_hub_url(repository.id, name, revision=repository.commit, endpoint=repository.endpoint)
    headers = build_hf_headers(token=repository.token)
    with get_session().stream("GET", url, headers=headers, timeout=30) as response:
        hf_raise_for_status(response)
        yield cast(BinaryIO, Forward(response.iter_raw(chunk_size=1 << 20)))


class Forward(RawIOBase):
    """Chunks of bytes as a file that can only be read on."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, bytearray()

    def read(self, size: int = -1) -> bytes:
        while len(self._held) < size and (chunk := next(self._chunks, b"")):
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
