from collections.abc import Callable

import pytest

from helexa.config.schema import Config

Read = Callable[..., Config]
Mistakes = Callable[..., list[str]]


def test_the_environment_wins_over_the_file(read: Read) -> None:
    config = read(
        '[gateway]\nlisten = "127.0.0.1:1"\ncors_origins = ["*"]',
        {"HELEXA_GATEWAY__LISTEN": "127.0.0.1:2"},
    )
    assert config.gateway.listen == "127.0.0.1:2"
    assert config.gateway.cors_origins == ("*",)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HELEXA_NODE__ENABLED", "false", False),
        ("HELEXA_NODE__MEMORY_MB", "2048", 2048),
        ("HELEXA_NODE__NAME", "gpu1", "gpu1"),
        ("HELEXA_NODE__NAME", '"gpu1"', "gpu1"),
        ("HELEXA_NODE__NAME", "5090", "5090"),
        ("HELEXA_NODE__TOKEN", "", ""),
        ("HELEXA_NODE__TOKEN", "true", "true"),
        ("HELEXA_NODE__TRUSTED_PEERS", '["10.0.0.1", "10.0.0.2"]', ("10.0.0.1", "10.0.0.2")),
    ],
)
def test_a_value_is_toml_or_else_text(read: Read, name: str, text: str, value: object) -> None:
    config = read("", {name: text})
    assert getattr(config.node, name.rpartition("__")[2].lower()) == value


def test_tables_in_arrays_can_be_given_whole(read: Read) -> None:
    devices = read("", {"HELEXA_NODE__DEVICES": '[{uuid = "a", enabled = false}]'}).node.devices
    assert [(device.uuid, device.enabled) for device in devices] == [("a", False)]


def test_names_without_two_underscores_are_not_ours(read: Read) -> None:
    environ = {"HELEXA_VENV": "/x", "HELEXA_API_KEY": "y", "OTHER__NAME": "z", "HELEXA": "1"}
    assert read("", environ) == Config()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("HELEXA_NODE__MEMORY_MB", "much", 'node.memory_mb: expected a whole number, got "much"'),
        ("HELEXA_NODE__ENABLED", "False", 'node.enabled: expected true or false, got "False"'),
        ("HELEXA_NODE__TRUSTED_PEERS", "10.0.0.1", "expected a list"),
        ("HELEXA_NODE__MEMROY_MB", "1", 'is unknown; did you mean "memory_mb"?'),
        ("HELEXA_NOD__NAME", "x", 'nod: is unknown; did you mean "node"?'),
        ("HELEXA_NODE__DEVICES__0__UUID", "x", "node.devices: expected a list"),
        ("HELEXA_NODE__NAME", "1\nlisten = 2", "node.name: expected"),
        ("HELEXA___NODE", "1", "is unknown"),
    ],
)
def test_a_mistake_is_named_by_its_variable(
    mistakes: Mistakes, name: str, text: str, words: str
) -> None:
    (only,) = mistakes('[gateway]\nlisten = "127.0.0.1:0"\n', {name: text})
    assert only.startswith(f"{name}: ")
    assert words in only


def test_a_mistake_of_the_file_goes_where_the_environment_overrides_it(read: Read) -> None:
    assert read("[node]\nmemory_mb = -1", {"HELEXA_NODE__MEMORY_MB": "1"}).node.memory_mb == 1


def test_mistakes_of_both_are_told_those_of_the_file_first(mistakes: Mistakes) -> None:
    found = mistakes("[node]\nname = 1\n", {"HELEXA_NODE__MEMORY_MB": "x"})
    assert [line.partition(":")[0] for line in found] == ["helexa.toml", "HELEXA_NODE__MEMORY_MB"]


def test_a_section_that_is_no_table_is_the_files_mistake(mistakes: Mistakes) -> None:
    (only,) = mistakes("node = 3\n", {"HELEXA_GATEWAY__ENABLED": "true"})
    assert only.startswith("helexa.toml:1: node: expected a table, got 3")


def test_a_secret_in_the_environment_is_never_shown(mistakes: Mistakes) -> None:
    assert "hunter2" not in "".join(mistakes("", {"HELEXA_NODE__TOKEN": "hunter2 hunter2"}))
