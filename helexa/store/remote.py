"""The outline of a model on a hub, out of the heads of its files."""

import json
from typing import Any

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store.checkpoint import CONFIG, INDEX, check_size, weight_names
from helexa.store.downloads import Repository, remote, told_by_hub
from helexa.store.facts import ModelFiles
from helexa.store.hub import choose_gguf, look_up, read_token
from helexa.store.outline import of_gguf, of_header, outlined
from helexa.store.source import HubSource


def hub_outline(source: HubSource, settings: Settings) -> ModelFiles:
    repository = look_up(source, read_token(settings.hf_token_file))
    if file := choose_gguf(repository.sizes, source):
        with told_by_hub(file), remote(repository, file) as stream:
            return of_gguf(stream, repository.sizes[file], file)
    top, where = {name for name in repository.sizes if "/" not in name}, f"hf:{repository.id}"
    if CONFIG not in top:
        raise StoreError(f"{where} has no {CONFIG}, so it is no model that can be used here.")
    index = read_json(repository, INDEX) if INDEX in top else None
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weight_names(top, index, where):
        with told_by_hub(name), remote(repository, name) as stream:
            shapes |= of_header(stream, repository.sizes[name], name)
    return outlined(read_json(repository, CONFIG), shapes)


def read_json(repository: Repository, name: str) -> dict[str, Any]:
    size = repository.sizes[name]
    check_size(name, size, f"hf:{repository.id}")
    with told_by_hub(name), remote(repository, name) as stream:
        text = stream.read(size)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise StoreError(f"{name} of hf:{repository.id} is not a JSON object.")
    return value
