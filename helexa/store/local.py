"""Models that lie on this machine: `path:/dir` and `gguf:/file.gguf`."""

from pathlib import Path

from helexa.errors import StoreError
from helexa.store.assemble import Fetched, complete_config, read_supported
from helexa.store.checkpoint import CONFIG, INDEX, TAKEN, check_size, read_object, weight_names
from helexa.store.files import regular_file


def fetch_file(path: Path, name: str | None = None, commit: str | None = None) -> Fetched:
    """One GGUF, called `name` from now on."""
    file = regular_file(path)
    name = name or path.name
    read_supported(file, name)
    return Fetched("gguf", {name: file}, commit)


def fetch_directory(directory: Path, scratch: Path, commit: str | None = None) -> Fetched:
    """The files of a safetensors checkpoint in `directory`, its config checked by way of `scratch`."""
    if not directory.is_dir():
        raise StoreError(f"{directory} is not a directory.")
    names = sorted(path.name for path in directory.iterdir())
    if CONFIG not in names:
        ggufs = [name for name in names if name.endswith(".gguf")]
        hint = f"; for its GGUF write gguf:{directory / ggufs[0]}" if ggufs else ""
        raise StoreError(f"{directory} has no {CONFIG}{hint}.")
    small = {n: regular_file(directory / n, within=directory) for n in names if n in TAKEN}
    for name, file in small.items():
        check_size(name, file.stat().st_size, str(directory))
    index = read_object(small[INDEX], TAKEN[INDEX]) if INDEX in small else None
    weights = weight_names(names, index, str(directory))
    config = complete_config(small[CONFIG], scratch, str(directory))
    files = {n: regular_file(directory / n, within=directory) for n in weights}
    return Fetched("safetensors", {**small, **files}, commit, config=config)
