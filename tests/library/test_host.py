"""A model as the lists show it."""

from collections.abc import Callable
from pathlib import Path

from helexa.fleet.catalogue import CatalogueModel
from helexa.host import described
from helexa.library import Library
from helexa.store import Store


async def test_a_model_was_created_when_its_files_came_here(
    library: Library, store: Store, put: Callable[..., Path]
) -> None:
    put()
    entry = CatalogueModel(id="toy", source="path:/srv/toy")
    listed = described(entry, await library.known(entry), "unloaded", None)
    assert listed.created == int(store.list()[0].added_at) > 0
    assert described(entry, None, "unloaded", None).created == 0
