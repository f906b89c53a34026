from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.config.read import read_catalogue
from helexa.config.schema import Config, Models
from helexa.errors import ConfigError
from helexa.fleet.catalogue import Catalogue, CatalogueModel, Cost, SamplingDefaults
from helexa.store.source import FORMS

ReadCatalogue = Callable[[str], Catalogue]


@pytest.fixture
def read_models(tmp_path: Path) -> ReadCatalogue:
    def read_models(text: str) -> Catalogue:
        file = tmp_path / "models.toml"
        file.write_text(text)
        return read_catalogue(Config(models=Models(catalogue=str(file))))

    return read_models


def mistakes_in(read_models: ReadCatalogue, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_models(text)
    return [mistake.rpartition("models.toml")[2] for mistake in caught.value.mistakes]


def test_entries_are_read_with_what_they_state(read_models: ReadCatalogue) -> None:
    catalogue = read_models(
        """
        [[models]]
        id = "Qwen/Qwen3-8B"
        source = "hf:Qwen/Qwen3-8B@main"
        aliases = ["small", "q"]
        vram_mb = 17000
        cost = { input = 1, output = 2.5 }
        [models.sampling]
        temperature = 0
        [[models]]
        id = "other"
        """
    )
    qwen, other = catalogue.models
    assert qwen == CatalogueModel(
        id="Qwen/Qwen3-8B",
        source="hf:Qwen/Qwen3-8B@main",
        aliases=("small", "q"),
        vram_mb=17000,
        cost=Cost(1.0, 2.5),
        sampling=SamplingDefaults(temperature=0.0),
    )
    assert other == CatalogueModel(id="other")
    assert catalogue.resolve("q") == qwen


def test_a_catalogue_that_is_named_must_be_there() -> None:
    config = Config(models=Models(catalogue="/nonexistent/models.toml"))
    with pytest.raises(ConfigError, match=r"/nonexistent/models\.toml: cannot be read"):
        read_catalogue(config)


def test_the_usual_place_is_read_when_none_is_named(tmp_path: Path) -> None:
    usual = tmp_path / "models.toml"
    assert read_catalogue(Config(), usual) == Catalogue()
    usual.write_text('[[models]]\nid = "mine"\n')
    assert [model.id for model in read_catalogue(Config(), usual).models] == ["mine"]


def test_a_catalogue_without_entries_serves_nothing_and_not_the_demo(
    read_models: ReadCatalogue,
) -> None:
    assert read_models("") == Catalogue(())


def test_all_mistakes_are_told_at_once(read_models: ReadCatalogue) -> None:
    found = mistakes_in(
        read_models,
        """\
[[models]]
id = "a"
source = "https://example.com/a"
[models.cost]
input = -1
[[models]]
id = "b"
aliases = ["a", "b", "c", "../d"]
[[models]]
id = "a"
harness = "vllm"
sampling = { temperature = 3, top_k = "x" }
[[models]]
aliases = ["c"]
vram = 5
""",
    )
    assert [line.partition("\n")[0] for line in found] == [
        f':3: models[0].source: expected a source: {FORMS}, got "https://example.com/a"',
        ":5: models[0].cost.input: expected 0 or a number above it, got -1.0",
        ':8: models[1].aliases: expected a model id such as "qwen3-8b" or "Qwen/Qwen3-8B", got "../d"',
        ':8: models[1].aliases[0]: is a name of models[0] already, got "a"',
        ':8: models[1].aliases[1]: is the model\'s own id, got "b"',
        ':10: models[2].id: is the id of models[0] too, got "a"',
        ':11: models[2].harness: expected one of "torch", "candle", "script", got "vllm"',
        ":12: models[2].sampling.temperature: expected a number from 0 to 2, got 3.0",
        ':12: models[2].sampling.top_k: expected a whole number, got "x"',
        ":13: models[3].id: is missing",
        ':14: models[3].aliases[0]: is a name of models[1] already, got "c"',
        ':15: models[3].vram: is unknown; did you mean "vram_mb"?',
    ]


def test_a_model_is_pinned_on_nodes_that_there_are(read_models: ReadCatalogue) -> None:
    (told,) = mistakes_in(read_models, '[[models]]\nid = "a"\npinned_on = ["local", "locl"]')
    assert "models[0].pinned_on[1]: is no node of this fleet; did you mean" in told


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("sampling.repetition_penalty = 0", "a number above 0 and up to 10"),
        ("sampling.repetition_penalty = -1", "a number above 0"),
        ("sampling.repetition_penalty = nan", "a finite number"),
        ("sampling.top_p = 0", "a number above 0 and up to 1"),
        ("sampling.top_p = 1.1", "a number above 0 and up to 1"),
        ("sampling.temperature = 2.1", "a number from 0 to 2"),
        ("sampling.min_p = -0.1", "a number from 0 to 1"),
        ("sampling.top_k = -1", "0 or a number above it"),
        ("sampling.presence_penalty = 3", "a number from -2 to 2"),
        ("sampling.frequency_penalty = -3", "a number from -2 to 2"),
        ("min_devices = 0", "a number from 1 to 64"),
        ('quant = "4 bits"', 'the name of a quantisation such as "Q4_K_M"'),
        ('download = "always"', 'one of "never", "on_demand"'),
        ('pinned_on = ["a b"]', "a name of letters"),
        ("ttl_seconds = -1", "0 or a number above it"),
        ('priority = "high"', "a whole number"),
    ],
)
def test_an_option_that_cannot_be_is_told(
    read_models: ReadCatalogue, option: str, expected: str
) -> None:
    (told,) = mistakes_in(read_models, f'[[models]]\nid = "a"\n{option}')
    assert f"models[0].{option.partition(' ')[0]}: " in told
    assert expected in told


def test_an_entry_of_another_fleet_is_read(read_models: ReadCatalogue) -> None:
    (model,) = read_models(
        """
        [[models]]
        id = "Qwen/Qwen3-8B"
        harness = "candle"
        quant = "Q4_K_M"
        vram_mb = 9000
        min_devices = 2
        min_device_vram_mb = 10000
        pinned_on = ["local"]
        cost = { input = 0.0, output = 0.0 }
        limit = { context = 131072, input = 122880, output = 8192 }
        """
    ).models
    assert (model.quant, model.min_devices) == ("Q4_K_M", 2)


def test_an_entry_is_found_by_the_files_that_it_is_served_from() -> None:
    named, bare = CatalogueModel(id="a", source="hf:org/name"), CatalogueModel(id="org/name")
    catalogue = Catalogue((named, CatalogueModel(id="b"), bare))
    assert (named.wanted, bare.wanted) == ("hf:org/name", "org/name")
    assert list(catalogue.served_from("hf:org/name")) == [named, bare]
    assert list(catalogue.served_from("no source at all")) == []


@pytest.mark.parametrize(
    "text",
    ["models = 5", 'models = ["a"]', "[[models]]\nid = 5\naliases = 7", "model = []", "[models]\n"],
)
def test_a_catalogue_of_another_shape_is_refused_in_words(
    read_models: ReadCatalogue, text: str
) -> None:
    assert mistakes_in(read_models, text)


@pytest.mark.parametrize("id", ["", "a b", "../a", "a//b", "/a", "a/", "é", "a\x1b", "x" * 201])
def test_an_id_that_could_hurt_a_path_or_a_page_is_refused(
    read_models: ReadCatalogue, id: str
) -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in id)
    assert "models[0].id: expected" in mistakes_in(read_models, f'[[models]]\nid = "{escaped}"')[0]
