"""The model store: where models come from, and the directories that engines load them from.

store       Store: add, find, list, touch, remove, prune
source      hf:, path:, gguf:, pypi:, node: as values                             (pure)
fetch       one way in per kind of source: hub, nodes, local, wheel
repository  what is taken of a model on another machine; downloads: its files, resumed
gguf        GGUF headers read and checked; ggml: their tensor types               (pure)
supported   which GGUF files transformers can read                                (pure)
tensors     safetensors headers checked
checkpoint  what is taken of a safetensors repository, and what is cleaned out    (pure)
assemble    fetched files made into a directory that loads by itself
child       runs prepare, the process that alone imports torch (helexa.engine.convert)
record      helexa.json, the pins of first adds
layout      directories, format version, locks; space, files, failures beside it
contents    what tells a model's files from others
facts       what config.json says of a model, for limits and memory estimates     (pure)
preview     the same of a source that is not here: the outline of its files' heads, remote ones too
command     `helexa models`; show: its progress; fit: `helexa models fit`

Synchronous: callers run it in worker threads or as a command.
"""

from helexa.store.progress import Progress
from helexa.store.record import StoredModel
from helexa.store.store import Store

__all__ = ["Progress", "Store", "StoredModel"]
