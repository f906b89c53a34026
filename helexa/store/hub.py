"""Models on a Hugging Face hub: listed, judged by their metadata, then downloaded or taken from a cache.

Downloads lie in `partial / "download"` and resume (`downloads`).
"""

import errno
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from attrs import field, frozen
from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store.assemble import Fetched
from helexa.store.downloads import SILENCE_SECONDS
from helexa.store.facts import ModelFiles
from helexa.store.failures import Unreachable, plain
from helexa.store.files import regular_file
from helexa.store.local import fetch_directory, fetch_file
from helexa.store.progress import Progress
from helexa.store.remote import repository_outline
from helexa.store.repository import fetch_checkpoint, fetch_gguf
from helexa.store.source import GGUF_QUANT, HubSource, is_member
from helexa.store.space import Disk

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@frozen
class HubRepository:
    """One commit of a repository on the hub (`downloads.Repository`)."""

    id: str
    commit: str
    sizes: dict[str, int]
    hashes: dict[str, str]  # of large files
    token: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        return f"hf:{self.id}"

    @contextmanager
    def stream(self, name: str, headers: Mapping[str, str]) -> Iterator[Any]:
        endpoint = os.environ.get("HF_ENDPOINT")
        url = hf_hub_url(self.id, name, revision=self.commit, endpoint=endpoint)
        known = build_hf_headers(token=self.token)
        asked = {**known, "Accept-Encoding": "identity", **headers}
        with get_session().stream("GET", url, headers=asked, timeout=SILENCE_SECONDS) as response:
            hf_raise_for_status(response)
            yield response

    def told(self, what: str) -> AbstractContextManager[None]:
        return told_by_hub(what)

    def cached(self, name: str) -> Path | None:
        found = try_to_load_from_cache(
            self.id, name, revision=self.commit, cache_dir=constants.HF_HUB_CACHE
        )
        if not isinstance(found, str):
            return None
        path = Path(found)
        depth = len(Path(name).parts)
        return regular_file(path, within=path.parents[depth - 1])


def fetch_hub(source: HubSource, partial: Path, disk: Disk, progress: Progress) -> Fetched:
    """The files of a repository; without a network, those of a complete snapshot in the hub cache."""
    try:
        repository = look_up(source, read_token(disk.settings.hf_token_file))
    except Unreachable:
        if (snapshot := cached_snapshot(source)) is None:
            raise
        return fetch_snapshot(source, snapshot, partial)
    if file := choose_gguf(repository.sizes, source):
        return fetch_gguf(repository, file, partial, disk, progress)
    return fetch_checkpoint(repository, partial, disk, progress)


def hub_outline(source: HubSource, settings: Settings) -> ModelFiles:
    repository = look_up(source, read_token(settings.hf_token_file))
    return repository_outline(repository, choose_gguf(repository.sizes, source))


def read_token(file: str) -> str | None:
    if not file:
        return None  # huggingface_hub's own ways to a token stand
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise StoreError(
            f"[store] hf_token_file {file} cannot be read: {error.strerror}."
        ) from None


def look_up(source: HubSource, token: str | None) -> HubRepository:
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    with told_by_hub(str(source)):
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True)
    if not info.sha or not COMMIT.fullmatch(info.sha):
        raise StoreError(f"The hub names no commit for {source}.")
    files = [f for f in info.siblings or [] if is_member(f.rfilename) and f.rfilename.isprintable()]
    hashes = {f.rfilename: f.lfs.sha256 for f in files if f.lfs and SHA256.fullmatch(f.lfs.sha256)}
    sizes = {f.rfilename: f.size for f in files if f.size is not None and f.size >= 0}
    return HubRepository(source.repo, info.sha, sizes, hashes, token)


def choose_gguf(names: Collection[str], source: HubSource) -> str | None:
    """The GGUF to take; None if there are safetensors and no GGUF is asked for.

    StoreError, listing what there is, if none or several fit.
    """
    if source.file:
        if source.file not in names:
            raise StoreError(f"hf:{source.repo} has no file {source.file!r}.")
        return source.file
    found = sorted(n for n in names if n.endswith(".gguf") and "mmproj" not in n)
    if source.quant and found:
        found = [name for name in found if quant_in(name) == source.quant] or refuse(source, found)
    elif not found or any(n.endswith(".safetensors") and "/" not in n for n in names):
        return None
    if len(found) > 1:
        raise StoreError(
            f"hf:{source.repo} has {len(found)} GGUF files; name one, as in "
            f"hf:{source.repo}/{found[0]} (there are {', '.join(found[:20])})."
        )
    return found[0]


def refuse(source: HubSource, names: Sequence[str]) -> NoReturn:
    quants = ", ".join(sorted({quant for name in names if (quant := quant_in(name))}))
    there = f"it has {quants}" if quants else f"it has {', '.join(names[:20])}"
    raise StoreError(f"hf:{source.repo} has no GGUF file in {source.quant}; {there}.")


def quant_in(name: str) -> str | None:
    """The quantisation that a GGUF's name tells: "Q4_K_M" of `model-Q4_K_M.gguf`, the last if several."""
    words = re.split(r"[-./]", name.removesuffix(".gguf").upper())
    return next((word for word in reversed(words) if GGUF_QUANT.fullmatch(word)), None)


def cached_snapshot(source: HubSource) -> Path | None:
    """The directory of the source's snapshot in the hub cache, if there is one."""
    home = Path(constants.HF_HUB_CACHE) / f"models--{source.repo.replace('/', '--')}"
    revision = source.revision or "main"
    reference = home / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = home / "snapshots" / commit
    return snapshot if COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def fetch_snapshot(source: HubSource, snapshot: Path, partial: Path) -> Fetched:
    names = [str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if p.is_file()]
    if file := choose_gguf(names, source):
        found = regular_file(snapshot / file, within=snapshot)
        return fetch_file(found, Path(file).name, snapshot.name)
    return fetch_directory(snapshot, partial / "check", snapshot.name)


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
