"""Models on a Hugging Face hub: listed, judged by their metadata, then downloaded or taken from a cache.

Downloads lie in `partial / "download"` and resume (`downloads`).
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import HfApi, constants

from helexa.errors import StoreError
from helexa.store.assemble import Fetched, complete_config, copy_bytes
from helexa.store.checkpoint import CONFIG, INDEX, TAKEN, check_size, read_object, weight_names
from helexa.store.downloads import Downloads, Repository, remote, told_by_hub
from helexa.store.failures import Unreachable
from helexa.store.files import regular_file
from helexa.store.gguf import read_header
from helexa.store.local import fetch_directory, fetch_file
from helexa.store.progress import Progress
from helexa.store.source import HubSource, is_member
from helexa.store.space import Disk
from helexa.store.supported import check_supported

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


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


def read_token(file: str) -> str | None:
    if not file:
        return None  # huggingface_hub's own ways to a token stand
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise StoreError(
            f"[store] hf_token_file {file} cannot be read: {error.strerror}."
        ) from None


def look_up(source: HubSource, token: str | None) -> Repository:
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    with told_by_hub(str(source)):
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True)
    if not info.sha or not COMMIT.fullmatch(info.sha):
        raise StoreError(f"The hub names no commit for {source}.")
    files = [f for f in info.siblings or [] if is_member(f.rfilename) and f.rfilename.isprintable()]
    hashes = {f.rfilename: f.lfs.sha256 for f in files if f.lfs and SHA256.fullmatch(f.lfs.sha256)}
    sizes = {f.rfilename: f.size for f in files if f.size is not None and f.size >= 0}
    return Repository(source.repo, info.sha, sizes, hashes, token)


def choose_gguf(names: Collection[str], source: HubSource) -> str | None:
    """The GGUF to take; None if there are safetensors and no GGUF is asked for."""
    if source.file:
        if source.file not in names:
            raise StoreError(f"hf:{source.repo} has no file {source.file!r}.")
        return source.file
    found = sorted(n for n in names if n.endswith(".gguf") and "mmproj" not in n)
    if not found or any(n.endswith(".safetensors") and "/" not in n for n in names):
        return None
    if len(found) > 1:
        raise StoreError(
            f"hf:{source.repo} has {len(found)} GGUF files; name one, as in "
            f"hf:{source.repo}/{found[0]} (there are {', '.join(found[:20])})."
        )
    return found[0]


def fetch_gguf(
    repository: Repository, name: str, partial: Path, disk: Disk, progress: Progress
) -> Fetched:
    size = repository.sizes[name]
    with told_by_hub(name), remote(repository, name) as stream:
        header = read_header(stream, size, name)
    check_supported(header, name)
    downloads = Downloads(repository, [name], partial / "download", progress)
    disk.check(downloads.missing_bytes() + copy_bytes(header, size), f"hf:{repository.id}")
    plain_name = Path(name).name
    hashes = {plain_name: repository.hashes[name]} if name in repository.hashes else {}
    return Fetched("gguf", {plain_name: downloads.get(name)}, repository.commit, hashes)


def fetch_checkpoint(
    repository: Repository, partial: Path, disk: Disk, progress: Progress
) -> Fetched:
    """Small files first: what they say decides whether the weights are downloaded at all."""
    top, where = {n for n in repository.sizes if "/" not in n}, f"hf:{repository.id}"
    if CONFIG not in top:
        raise StoreError(f"{where} has no {CONFIG}, so it is no model that can be used here.")
    small = sorted(top & TAKEN.keys())
    for name in small:
        check_size(name, repository.sizes[name], where)
    few = Downloads(repository, small, partial / "download", progress)
    disk.check(few.missing_bytes(), where)
    files = {name: few.get(name) for name in small}
    index = read_object(files[INDEX], TAKEN[INDEX]) if INDEX in files else None
    names = weight_names(top, index, where)
    config = complete_config(files[CONFIG], partial / "check", where)
    weights = Downloads(repository, names, partial / "download", progress)
    disk.check(weights.missing_bytes(), where)
    files |= {name: weights.get(name) for name in names}
    hashes = {name: repository.hashes[name] for name in files if name in repository.hashes}
    return Fetched("safetensors", files, repository.commit, hashes, config)


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
