"""Making a model directory out of fetched files, in a form that a loader reads by itself."""

from pathlib import Path

from attrs import Factory, frozen

from helexa.devices.memory import measure
from helexa.errors import HelexaError, StoreError
from helexa.store.checkpoint import CONFIG, INDEX, SETTINGS, TAKEN, clean, read_object
from helexa.store.child import run_child
from helexa.store.files import empty, link
from helexa.store.gguf import GgufHeader, read_header
from helexa.store.progress import Progress
from helexa.store.record import Weights, write_object
from helexa.store.supported import check_supported
from helexa.store.tensors import check_safetensors

SMALL = 1_000_000_000  # bytes; a GGUF below it gets a converted copy beside it
FLOAT16_BYTES = 2
# While converting, the child holds every weight twice in float32: as read, and in its module.
CONVERTING_BYTES = 8
CHILD_BYTES = 1_000_000_000  # what it holds besides: libraries, vocabulary


@frozen
class Fetched:
    """The files of a model as they came, by the name they shall have.

    `commit` is the repository's; `hashes` are SHA-256 that the source itself gave; `config` is the
    checkpoint's config.json as transformers understands it, complete.
    """

    weights: Weights
    files: dict[str, Path]
    commit: str | None = None
    hashes: dict[str, str] = Factory(dict)
    config: Path | None = None


def read_supported(file: Path, name: str) -> GgufHeader:
    """The header of a GGUF that can be used here; StoreError, naming it `name`, for any other."""
    with file.open("rb") as stream:
        header = read_header(stream, file.stat().st_size, name)
    check_supported(header, name)
    return header


def copy_bytes(header: GgufHeader, size: int) -> int:
    """What preparing a GGUF of `size` bytes adds to the disk: its copy, if it is to have one."""
    return header.elements * FLOAT16_BYTES if size < SMALL else 0


def assemble_gguf(file: Path, name: str, directory: Path, progress: Progress) -> Weights:
    """Link the GGUF into `directory` and let the child write what a loader needs beside it."""
    progress("prepare", 0, 0)
    header = read_supported(file, name)
    gguf = directory / name
    link(file, gguf)
    with_weights = file.stat().st_size < SMALL
    needed = header.elements * CONVERTING_BYTES if with_weights else 0
    check_memory(needed + CHILD_BYTES, name)
    run_child({"do": "convert", "gguf": str(gguf), "weights": with_weights}, needed)
    write_cleaned(directory / CONFIG, directory / CONFIG)
    return "safetensors" if with_weights else "gguf"


def assemble_checkpoint(fetched: Fetched, directory: Path, progress: Progress) -> Weights:
    """Link the weights and the tokenizer into `directory`, and rewrite the settings cleaned."""
    progress("prepare", 0, 0)
    for name, path in fetched.files.items():
        if name == CONFIG:
            write_cleaned(fetched.config or path, directory / name)
        elif name in SETTINGS:
            write_cleaned(path, directory / name)
        else:
            link(path, directory / name)
    check_tensors(directory)
    if not (directory / "tokenizer.json").exists():
        run_child({"do": "tokenizer", "directory": str(directory)})
    return "safetensors"


def write_cleaned(settings: Path, target: Path) -> None:
    write_object(target, clean(read_object(settings, TAKEN[target.name]), target.name))


def check_tensors(directory: Path) -> None:
    """StoreError unless every safetensors file is sound and holds what the index says it does."""
    found = {path.name: check_safetensors(path) for path in directory.glob("*.safetensors")}
    if not (directory / INDEX).exists():
        return
    index = read_object(directory / INDEX, TAKEN[INDEX])
    for tensor, shard in index["weight_map"].items():
        if tensor not in found[shard]:
            raise StoreError(f"{shard} lacks the tensor {tensor[:100]!r}, which the index names.")


def complete_config(config: Path, scratch: Path, where: str) -> Path:
    """Where the config.json lies as transformers understands it, with every assumed value stated.

    A child asks transformers, with the cleaned config alone in `scratch`.  StoreError if it knows no
    text model of this kind, or if the file is no sound one.
    """
    cleaned = clean(read_object(config, TAKEN[CONFIG]), where)
    write_object(empty(scratch) / CONFIG, cleaned)
    run_child({"do": "check", "directory": str(scratch)})
    return scratch / CONFIG


def check_memory(needed: int, name: str) -> None:
    try:
        free = measure().free_mb << 20
    except HelexaError:
        return  # unknown: the child's own limit is left to tell
    if needed > free:
        raise StoreError(
            f"Converting {name} needs about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
            "are free: unload a model and add it again."
        )
