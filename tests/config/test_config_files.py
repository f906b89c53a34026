"""conf/*.toml state every option at its default, with a sentence each."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

from helexa.config.read import CatalogueFile, read_all, read_catalogue, read_config
from helexa.config.schema import (
    AccountKey,
    AccountLimit,
    Config,
    Models,
    NodeDevice,
    RemoteNode,
)
from helexa.config.structure import structure
from helexa.fleet.catalogue import Catalogue, CatalogueModel, Cost, SamplingDefaults

CONF = Path(__file__).parents[2] / "conf"
HELEXA, MODELS = CONF / "helexa.toml", CONF / "models.toml"
EXAMPLE = re.compile(r"^# ((?:\[|# |[a-z_]+ = ).*)$", re.MULTILINE)


def uncommented(text: str, begin: str) -> str:
    """The commented example that begins with `begin`, as TOML."""
    example = text[text.index(f"# {begin}") :].partition("\n\n")[0]
    return EXAMPLE.sub(r"\1", example)


def options(kind: Any) -> dict[str, Any]:
    """Every option of a class and its default."""
    return {field.name: field.default for field in attrs.fields(kind)}


def test_the_configuration_file_is_the_default(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.toml"
    assert read_config(HELEXA, {}) == Config()
    assert read_all(HELEXA, {}, nowhere, nowhere) == (Config(), Catalogue())


def test_the_configuration_file_states_every_option() -> None:
    stated = tomllib.loads(HELEXA.read_text())
    expected = {
        section.name: {option.name for option in attrs.fields(section.type)}
        for section in attrs.fields(Config)
        if attrs.has(section.type)
    }
    expected["node"].remove("devices")  # stated as an example, below
    expected["accounts"] -= {"keys", "limits"}  # likewise
    assert {name: set(section) for name, section in stated.items()} == expected


def test_the_example_of_a_device_states_every_option_at_its_default() -> None:
    (device,) = tomllib.loads(uncommented(HELEXA.read_text(), "[[node.devices]]"))["node"][
        "devices"
    ]
    assert structure(device, NodeDevice) == NodeDevice(device["uuid"])
    assert set(device) == set(options(NodeDevice))


def test_the_example_of_a_node_states_every_option_at_its_default() -> None:
    (node,) = tomllib.loads(uncommented(HELEXA.read_text(), "[[nodes]]"))["nodes"]
    assert structure(node, RemoteNode) == RemoteNode(node["name"], node["endpoint"])
    assert set(node) == set(options(RemoteNode))


def test_the_example_of_a_key_states_every_option_at_its_default() -> None:
    (key,) = tomllib.loads(uncommented(HELEXA.read_text(), "[[accounts.keys]]"))["accounts"]["keys"]
    read = structure(key, AccountKey)
    unbounded = attrs.evolve(read, hard_cap=None, hard_cap_usd=None, expires_at=None)
    assert unbounded == AccountKey(key["account_id"])
    assert set(key) == set(options(AccountKey))


def test_the_example_of_a_limit_states_every_option() -> None:
    (limit,) = tomllib.loads(uncommented(HELEXA.read_text(), "[[accounts.limits]]"))["accounts"][
        "limits"
    ]
    assert structure(limit, AccountLimit).window.kind == "rolling"
    assert set(limit) == set(options(AccountLimit))


def test_the_catalogue_file_is_the_one_that_is_built_in() -> None:
    assert read_catalogue(Config(models=Models(catalogue=str(MODELS)))) == Catalogue()


def test_the_example_of_a_model_states_every_option_at_its_default() -> None:
    data = tomllib.loads(uncommented(MODELS.read_text(), "[[models]]"))
    (model,) = structure(data, CatalogueFile).models
    (stated,) = data["models"]
    assert set(stated) == set(options(CatalogueModel))
    assert set(stated["cost"]) == set(options(Cost))
    assert set(stated["sampling"]) == set(options(SamplingDefaults))
    assert attrs.evolve(model, cost=None, sampling=SamplingDefaults()) == CatalogueModel(model.id)


def test_every_option_has_a_sentence_above_it() -> None:
    for text in (
        HELEXA.read_text(),
        uncommented(HELEXA.read_text(), "[[node.devices]]"),
        uncommented(HELEXA.read_text(), "[[nodes]]"),
        uncommented(HELEXA.read_text(), "[[accounts.keys]]"),
        uncommented(HELEXA.read_text(), "[[accounts.limits]]"),
        uncommented(MODELS.read_text(), "[[models]]"),
    ):
        for above, line in pairwise(text.splitlines()):
            if re.match(r"[a-z_]+ = ", line):
                assert above.startswith("# ")
                assert above.endswith((".", '"'))
