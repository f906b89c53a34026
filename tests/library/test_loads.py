"""From what somebody asks to be loaded to one entry for the files that it means."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helexa.config.schema import Limits
from helexa.config.schema import Store as Settings
from helexa.errors import Forbidden, InvalidRequest, ModelNotFound
from helexa.fleet.catalogue import Catalogue, CatalogueModel
from helexa.library import Library
from helexa.loads import Loads, LoadSpec
from helexa.renderers import Renderers
from helexa.shelf import Shelf
from helexa.store import Store, StoredModel
from helexa.store.nodes import Nodes

SOURCE = "path:/srv/toy"
NOTHING = Catalogue(())
Put = Callable[..., Path]


@pytest.fixture
def loads(library: Library) -> Callable[..., Loads]:
    def loads(*models: CatalogueModel, allow: tuple[str, ...] = ()) -> Loads:
        catalogue = Catalogue(models)
        return Loads(Shelf(catalogue, lambda: catalogue), library, allow)

    return loads


async def test_files_of_an_entry_are_that_entry_by_whatever_name(
    loads: Callable[..., Loads], put: Put
) -> None:
    entry = CatalogueModel(id="toy", source=SOURCE, aliases=("t",))
    bare = CatalogueModel(id="org/name")
    known = loads(CatalogueModel(id="other"), entry, bare)
    for name in ("toy", "t", SOURCE, put(SOURCE).name):
        assert await known.entry_for(LoadSpec(name)) == entry
        assert known.id_of(name) == "toy"
    assert await known.entry_for(LoadSpec("mine", source=SOURCE)) == entry
    assert await known.entry_for(LoadSpec("hf:org/name")) == bare  # not in the store yet
    assert known.id_of("elsewhere") == "elsewhere"


async def test_stored_files_of_no_entry_have_one_id(loads: Callable[..., Loads], put: Put) -> None:
    name, hub = put(SOURCE).name, put("hf:org/name").name
    known = loads()
    for asked in (name, SOURCE):
        assert await known.entry_for(LoadSpec(asked)) == CatalogueModel(id=name, source=SOURCE)
    for asked in (hub, "hf:org/name", "org/name"):
        found = await known.entry_for(LoadSpec(asked))
        assert found == CatalogueModel(id="org/name", source="hf:org/name")
    taken = loads(CatalogueModel(id="org/name", source="path:/elsewhere"))
    assert (await taken.entry_for(LoadSpec(hub))).id == hub


async def test_a_long_wheel_source_is_no_internal_error(
    loads: Callable[..., Loads], put: Put
) -> None:
    wheel = "pypi:llm-toy==0.1.2/llm_toy/Toy.gguf"
    with pytest.raises(ModelNotFound):
        await loads().entry_for(LoadSpec(wheel))
    name = put(wheel).name
    assert (await loads().entry_for(LoadSpec(wheel))).id == name


@pytest.mark.parametrize("model_id", ["../etc", "a b", "é", "x" * 500, "pypi:x=1", "", "a//b"])
async def test_an_id_that_could_hurt_is_refused(loads: Callable[..., Loads], model_id: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await loads().entry_for(LoadSpec(model_id))
    assert refused.value.param == "model_id"


async def test_an_odd_id_is_refused_before_its_source_is_fetched(
    loads: Callable[..., Loads], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "add", None)
    with pytest.raises(InvalidRequest) as refused:
        await loads(allow=("path:*",)).entry_for(LoadSpec(SOURCE + "==", source=SOURCE))
    assert refused.value.param == "model_id"
    with pytest.raises(Forbidden):
        await loads().entry_for(LoadSpec("mine", source=SOURCE))


async def test_an_allowed_source_is_fetched_under_the_id_that_was_asked_for(
    loads: Callable[..., Loads], library: Library, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(SOURCE)

    async def add(self: Library, source: str) -> StoredModel | None:
        return await self.find(source)

    monkeypatch.setattr(Library, "add", add)
    found = await loads(allow=("path:*",)).entry_for(LoadSpec("mine", source=SOURCE))
    assert found == CatalogueModel(id="mine", source=SOURCE)


# -- for a gateway, whose requests ask ---------------------------------------------------------------


async def test_a_gateway_may_have_what_is_stored_loaded_under_its_own_id(
    loads: Callable[..., Loads], put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(SOURCE)
    monkeypatch.setattr(Library, "add", None)
    found = await loads().entry_for(LoadSpec("mine", source=SOURCE, on_demand=True))
    assert found == CatalogueModel(id="mine", source=SOURCE)


async def test_a_gateway_is_not_a_way_to_fetch_what_nobody_allowed(
    loads: Callable[..., Loads], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "add", None)
    never = LoadSpec("mine", source=SOURCE, on_demand=True)
    fetching = LoadSpec("mine", source=SOURCE, on_demand=True, download="on_demand")
    for known in (loads(), loads(allow=("path:*",))):
        found = await known.entry_for(never)  # it is told that its files are missing
        assert (found.source, found.download) == (SOURCE, "never")
    with pytest.raises(Forbidden):
        await loads().entry_for(fetching)
    found = await loads(allow=("path:*",)).entry_for(fetching)
    assert found == CatalogueModel(id="mine", source=SOURCE, download="on_demand")


async def test_an_operator_of_a_gateway_is_none_either(
    loads: Callable[..., Loads], put: Put
) -> None:
    spec = LoadSpec("mine", source=SOURCE, on_demand=True, by="operator")
    with pytest.raises(Forbidden):
        await loads().entry_for(spec)
    put(SOURCE)
    assert await loads().entry_for(spec) == CatalogueModel(id="mine", source=SOURCE)


async def test_files_of_this_node_itself_are_those_that_it_has(put: Put, root: Path) -> None:
    put("hf:org/toy")
    store = Store(Settings(min_free_gb=0), root, Nodes("big"))
    library: Any = Library(store, Limits(), object.__new__(Renderers))
    known = Loads(Shelf(NOTHING, lambda: NOTHING), library, ())
    spec = LoadSpec("mine", source="node:big/org/toy", on_demand=True, by="operator")
    assert await known.entry_for(spec) == CatalogueModel(id="mine", source="hf:org/toy")


async def test_the_node_s_own_entry_has_the_word_on_what_a_gateway_s_load_fetches(
    loads: Callable[..., Loads],
) -> None:
    entry = CatalogueModel(id="toy", source=SOURCE)
    spec = LoadSpec("toy", source="hf:other/x", on_demand=True, download="on_demand")
    assert await loads(entry).entry_for(spec) == entry


@pytest.mark.parametrize("source", ["nonsense", "a/b", "hf:", "path:relative", "x" * 900])
async def test_a_source_of_a_gateway_that_is_none_is_no_internal_error(
    loads: Callable[..., Loads], source: str
) -> None:
    with pytest.raises((InvalidRequest, Forbidden)) as refused:
        await loads().entry_for(LoadSpec("mine", source=source, on_demand=True))
    assert refused.value.param == "source"


@pytest.mark.parametrize("quant", ["", "none", "INT8", "auto", "Q4_K_M", "awq"])
async def test_a_quantisation_may_be_any_that_the_catalogue_may_name(
    loads: Callable[..., Loads], quant: str
) -> None:
    entry = CatalogueModel(id="toy")
    assert await loads(entry).entry_for(LoadSpec("toy", quant=quant)) == entry


async def test_a_quantisation_that_nobody_knows_is_refused(loads: Callable[..., Loads]) -> None:
    with pytest.raises(InvalidRequest, match="int4") as refused:
        await loads(CatalogueModel(id="toy")).entry_for(LoadSpec("toy", quant="tiny"))
    assert refused.value.param == "quant"
