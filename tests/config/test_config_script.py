"""Script models in a catalogue: what they must hold, and mistakes in the rules that they name."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.config.checks import Prose
from helexa.config.read import read_catalogue
from helexa.config.schema import Config, Models, Node
from helexa.config.script import read_rules
from helexa.errors import ConfigError
from helexa.fleet.catalogue import DEMO_MODEL, Catalogue, CatalogueModel
from helexa.fleet.script import Rule, Rules
from helexa.store.source import FORMS

ENTRY = '[[models]]\nid = "a"\nharness = "script"\nscript = "rules.toml"\n'
Read = Callable[..., Catalogue]


@pytest.fixture
def read_models(tmp_path: Path) -> Read:
    """The catalogue that a text makes, with a file of rules beside it."""

    def read_models(text: str, rules: str | None = "", *, node: bool = True) -> Catalogue:
        file = tmp_path / "models.toml"
        file.write_text(text)
        if rules is not None:
            (tmp_path / "rules.toml").write_text(rules)
        config = Config(models=Models(catalogue=str(file)), node=Node(enabled=node))
        return read_catalogue(config)

    return read_models


@pytest.fixture
def mistakes(read_models: Read, tmp_path: Path) -> Callable[..., list[str]]:
    """The first line of every mistake."""

    def mistakes(*args: object, **options: bool) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read_models(*args, **options)
        told = [mistake.replace(f"{tmp_path}/", "") for mistake in caught.value.mistakes]
        return [mistake.partition("\n")[0] for mistake in told]

    return mistakes


def test_a_script_model_names_its_rules_and_reads_as_the_demo_model_does(
    read_models: Read, tmp_path: Path
) -> None:
    (model,) = read_models(ENTRY + 'vram_mb = 300\nmax_context = 4096\ntool_parser = "glm"').models
    assert model.is_script
    assert model.script == str(tmp_path / "rules.toml")
    assert model.wanted == DEMO_MODEL.source
    assert (model.vram_mb, model.max_context, model.tool_parser) == (300, 4096, "glm")


def test_a_tokenizer_is_a_directory_a_source_or_an_entry_of_the_catalogue(
    read_models: Read, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tokenizer.json").touch()
    named = [
        str(tmp_path / "here"),
        "./here",
        "here",
        "hf:Qwen/Qwen3-8B",
        "stored-12ab",
        "q",
        "demo",
    ]
    text = "".join(
        ENTRY.replace('"a"', f'"m{i}"') + f'tokenizer = "{name}"\n' for i, name in enumerate(named)
    )
    other = '[[models]]\nid = "qwen"\nsource = "hf:Qwen/Qwen3-0.6B"\naliases = ["q"]\n'
    found = read_models(text + other).models[: len(named)]
    here = str(tmp_path / "here")
    assert [model.wanted for model in found] == [
        here,
        here,
        here,
        "hf:Qwen/Qwen3-8B",
        "stored-12ab",
        "hf:Qwen/Qwen3-0.6B",
        DEMO_MODEL.source,
    ]


def test_every_mistake_of_catalogue_and_rules_is_told_at_once(
    mistakes: Callable[..., list[str]],
) -> None:
    catalogue = f"""\
{ENTRY}source = "hf:a/b"
tokenizer = "./nowhere"
tool_parser = "morse"
[[models]]
id = "b"
script = "rules.toml"
tokenizer = "q"
[[models]]
id = "c"
harness = "script"
tokenizer = "no such thing"
[[models]]
id = "d"
harness = "script"
script = "missing.toml"
vram_mb = -1
"""
    rules = """\
load_second = 1
[[rules]]
when = "(?<=a)b"
say = 5
tokens_per_second = -1
[[rules]]
fail_after_tokens = -1
load_seconds = -0.5
"""
    found = mistakes(catalogue, rules)
    assert [line for line in found if "tool_parser" not in line and "nowhere" not in line] == [
        'models.toml:5: models[0].source: names weights, which a script model has none of, got "hf:a/b"',
        'models.toml:10: models[1].script: is for models of harness = "script", got "rules.toml"',
        'models.toml:11: models[1].tokenizer: is for models of harness = "script", got "q"',
        "models.toml:12: models[2].script: is missing: a script model needs a file of rules",
        'models.toml:15: models[2].tokenizer: expected a directory ("/..." or "./..."), a model of '
        f'the store or a source: {FORMS}, got "no such thing"',
        "models.toml:19: models[3].script: is not to be had: there is no file missing.toml",
        "models.toml:20: models[3].vram_mb: expected 0 or a number above it, got -1",
        'rules.toml:1: load_second: is unknown; did you mean "load_seconds"?',
        "rules.toml:3: rules[0].when: expected a regular expression of RE2 "
        '(invalid perl operator: (?<=), got "(?<=a)b"',
        "rules.toml:4: rules[0].say: expected text in quotes, got 5",
        "rules.toml:5: rules[0].tokens_per_second: expected 0 or a number above it, got -1.0",
        "rules.toml:6: rules[1].say: is missing",
        "rules.toml:7: rules[1].fail_after_tokens: expected 0 or a number above it, got -1",
        "rules.toml:8: rules[1].load_seconds: expected 0 or a number above it, got -0.5",
    ]
    assert any("nowhere/tokenizer.json" in line for line in found)
    assert any(line.startswith("models.toml:7: models[0].tool_parser: expected") for line in found)


def test_rules_that_are_not_toml_are_told_with_their_line(
    mistakes: Callable[..., list[str]],
) -> None:
    (told,) = mistakes(ENTRY, "[[rules]]\nsay = hello")
    assert told.startswith("rules.toml:2: is not TOML")


def test_rules_that_several_models_share_are_told_once(mistakes: Callable[..., list[str]]) -> None:
    assert len(mistakes(ENTRY + ENTRY.replace('"a"', '"b"'), "x = 1")) == 1


def test_a_gateway_alone_leaves_the_files_to_its_nodes(
    read_models: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    entry = ENTRY + 'tokenizer = "./nowhere"'
    assert read_models(entry, "[[rules]]\nwhen = '('\n", node=False).models[0].is_script
    assert read_models(ENTRY, None, node=False)


def test_a_node_without_re2_is_told_what_to_install(
    mistakes: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert Rule(Prose("a rule without a pattern")).fits(b"")
    (told,) = mistakes(ENTRY, "[[rules]]\nwhen = 'a'\nsay = 'b'")
    assert "google-re2 is not installed: pip install 'helexa[node]'" in told


def test_rules_are_read_with_what_they_state(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        """
        load_seconds = 2
        [[rules]]
        when = 'read (\\w+)'
        say = '''<think>So.</think>
        \tIt is.'''
        tokens_per_second = 20
        fail_after_tokens = 0
        load_seconds = 3.5
        [[rules]]
        say = ""
        """
    )
    found = read_rules(file)
    say = Prose("<think>So.</think>\n        \tIt is.")
    assert found == Rules((Rule(say, "read (\\w+)", 20.0, 0, 3.5), Rule(Prose(""))), 2.0)
    assert found.longest_load_seconds == 3.5


def test_a_script_model_keeps_the_store_s_model_that_it_reads_with() -> None:
    entry = CatalogueModel(id="a", harness="script", script="/r.toml")
    assert list(Catalogue((entry,)).served_from(DEMO_MODEL.source)) == [entry]
