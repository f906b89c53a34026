"""The outline of a model in a repository on another machine, out of the heads of its files."""

import json
from typing import Any

from helexa.errors import StoreError
from helexa.store.checkpoint import CONFIG, INDEX, check_size, weight_names
from helexa.store.downloads import Repository, beginning
from helexa.store.facts import ModelFiles
from helexa.store.outline import of_gguf, of_header, outlined


def repository_outline(repository: Repository, gguf: str | None) -> ModelFiles:
    """Of the GGUF if one is to be taken, else of the checkpoint."""
    if gguf:
        with repository.told(gguf), beginning(repository, gguf) as stream:
            return of_gguf(stream, repository.sizes[gguf], gguf)
    top, where = {name for name in repository.sizes if "/" not in name}, repository.where
    if CONFIG not in top:
        raise StoreError(f"{where} has no {CONFIG}, so it is no model that can be used here.")
    index = read_json(repository, INDEX) if INDEX in top else None
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weight_names(top, index, where):
        with repository.told(name), beginning(repository, name) as stream:
            shapes |= of_header(stream, repository.sizes[name], name)
    return outlined(read_json(repository, CONFIG), shapes)


def read_json(repository: Repository, name: str) -> dict[str, Any]:
    size = repository.sizes[name]
    check_size(name, size, repository.where)
    with repository.told(name), beginning(repository, name) as stream:
        text = stream.read(size)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise StoreError(f"{name} of {repository.where} is not a JSON object.")
    return value
