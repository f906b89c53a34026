"""A repository of model files on another machine, whoever serves it, and what is taken of one."""

from pathlib import Path

from helexa.errors import StoreError
from helexa.store.assemble import Fetched, complete_config, copy_bytes
from helexa.store.checkpoint import CONFIG, INDEX, TAKEN, check_size, read_object, weight_names
from helexa.store.downloads import Downloads, Repository, beginning
from helexa.store.gguf import read_header
from helexa.store.progress import Progress
from helexa.store.space import Disk
from helexa.store.supported import check_supported


def fetch_gguf(
    repository: Repository, name: str, partial: Path, disk: Disk, progress: Progress
) -> Fetched:
    size = repository.sizes[name]
    with repository.told(name), beginning(repository, name) as stream:
        header = read_header(stream, size, name)
    check_supported(header, name)
    downloads = Downloads(repository, [name], partial / "download", progress)
    disk.check(downloads.missing_bytes() + copy_bytes(header, size), repository.where)
    plain_name = Path(name).name
    hashes = {plain_name: repository.hashes[name]} if name in repository.hashes else {}
    return Fetched("gguf", {plain_name: downloads.get(name)}, repository.commit, hashes)


def fetch_checkpoint(
    repository: Repository, partial: Path, disk: Disk, progress: Progress
) -> Fetched:
    """Small files first: what they say decides whether the weights are downloaded at all."""
    top, where = {n for n in repository.sizes if "/" not in n}, repository.where
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
