"""What options must be together, and configuration against catalogue."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.config.read import config_warnings, read_all
from helexa.config.schema import Config, Node
from helexa.fleet.catalogue import Catalogue

Read = Callable[..., Config]
Mistakes = Callable[..., list[str]]
BothMistakes = Callable[[str, str], list[str]]

OPEN = '[node]\nlisten = "0.0.0.0:13131"\n'


def test_a_role_must_be_enabled(mistakes: Mistakes) -> None:
    (only,) = mistakes("[gateway]\nenabled = false\n[node]\nenabled = false\n")
    assert "leaves nothing to run" in only


@pytest.mark.parametrize("section", ["gateway", "node", "metrics"])
def test_no_listener_is_open_to_others_by_accident(mistakes: Mistakes, section: str) -> None:
    (only,) = mistakes(f'[{section}]\nlisten = "0.0.0.0:5555"\n')
    assert only.startswith(f"helexa.toml:2: {section}.listen: ")
    assert "allow_open" in only


@pytest.mark.parametrize("guard", ["allow_open = true", 'token = "t"', "enabled = false"])
def test_a_listener_may_be_open_with_a_guard_or_on_somebodys_word(read: Read, guard: str) -> None:
    assert read(OPEN + guard).node.listen == "0.0.0.0:13131"


def test_two_listeners_cannot_have_one_address(mistakes: Mistakes) -> None:
    (only,) = mistakes('[node]\nlisten = "127.0.0.1:31313"\n')
    assert "node.listen: is the address of gateway.listen too" in only


def test_any_free_port_is_not_one_address(read: Read) -> None:
    read('[gateway]\nlisten = "127.0.0.1:0"\n[node]\nlisten = "127.0.0.1:0"\n')


def test_a_token_file_must_be_there(mistakes: Mistakes) -> None:
    (only,) = mistakes('[store]\nhf_token_file = "/nonexistent/token"\n')
    assert "store.hf_token_file: cannot be read by this user" in only


def test_what_follows_from_another_mistake_is_not_told(mistakes: Mistakes) -> None:
    (only,) = mistakes(OPEN + "allow_open = 1\n")
    assert "node.allow_open: expected true or false" in only


def test_what_does_not_follow_from_another_mistake_is_told(mistakes: Mistakes) -> None:
    assert len(mistakes(OPEN + "[server]\ndrain_seconds = -1\n")) == 2


def test_preloaded_models_are_in_the_catalogue_by_id_or_alias(
    both_mistakes: BothMistakes,
) -> None:
    config = '[models]\npreload = [\n  "small",\n  "qwen3-8c",\n]\n'
    (only,) = both_mistakes(config, '[[models]]\nid = "qwen3-8b"\naliases = ["small"]\n')
    assert only.startswith(
        'helexa.toml:2: models.preload[1]: names "qwen3-8c", which is not in the catalogue; '
        'did you mean "qwen3-8b"?'
    )


def test_a_catalogue_that_is_not_there_is_told_as_the_setting_that_names_it(
    both_mistakes: BothMistakes,
) -> None:
    found = both_mistakes('[node]\nname = 5\n[models]\ncatalogue = "/nowhere/models.toml"\n', "")
    assert [line.partition(":")[0] for line in found] == ["helexa.toml"] * 2
    assert found[1].startswith(
        'helexa.toml:4: models.catalogue: names no file that is there, got "/nowhere/models.toml"'
    )


def test_mistakes_of_configuration_and_catalogue_are_told_together(
    both_mistakes: BothMistakes,
) -> None:
    found = both_mistakes("[node]\nname = 5\n", "[[models]]\nid = 5\n")
    assert [line.partition(":")[0] for line in found] == ["helexa.toml", "models.toml"]


def test_without_any_file_the_demo_model_is_served(nowhere: Path) -> None:
    assert read_all(None, {}, nowhere, nowhere) == (Config(), Catalogue())


def test_a_readable_file_with_a_token_warns(tmp_path: Path) -> None:
    file = tmp_path / "helexa.toml"
    file.write_text("")
    config = Config(node=Node(token="t"))
    file.chmod(0o644)
    assert "chmod 600" in config_warnings(file, config)[0]
    assert config_warnings(file, Config()) == []
    file.chmod(0o600)
    assert config_warnings(file, config) == []


def test_nothing_is_warned_of_where_there_is_no_file(nowhere: Path) -> None:
    assert config_warnings(None, Config(), nowhere) == []
