"""Script models in a catalogue: what their entries must hold, and reading the rules that they name.

Only a host that runs a node looks at the files: rules lie beside the models, and their patterns are
RE2's, which a gateway alone does not have.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from helexa.config.document import read_document
from helexa.config.lines import KeyPath
from helexa.config.structure import Mistake, Mistakes, structure
from helexa.config.told import tell
from helexa.errors import ConfigError
from helexa.fleet.catalogue import Catalogue, CatalogueModel, is_directory
from helexa.fleet.script import Rules

OWN = ("script", "tokenizer")  # what only a script model has
SENSELESS = ("source", "quant")  # what names weights
TOKENIZER = "tokenizer.json"


def script_rules(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """Keys that belong together.  Takes data as read, so that other mistakes do not hide these."""
    for path, model in entries(data):
        is_script = model.get("harness") == "script"
        if is_script and not model.get("script"):
            yield Mistake((*path, "script"), "is missing: a script model needs a file of rules")
        for key in SENSELESS if is_script else OWN:
            if model.get(key):
                text = (
                    "names weights, which a script model has none of"
                    if is_script
                    else 'is for models of harness = "script"'
                )
                yield Mistake((*path, key), text, model[key])


def missing_files(data: Mapping[str, Any], folder: Path) -> Iterator[Mistake]:
    """Rules and tokenizers that are named, relative to `folder`, and not there."""
    for path, key, file in named_files(data, folder):
        if not file.is_file():
            yield Mistake((*path, key), f"is not to be had: there is no file {file}")


def rules_mistakes(data: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What is wrong inside the files of rules that are there, each told once and with its line."""
    files = {file for _, key, file in named_files(data, folder) if key == "script"}
    for file in sorted(files):
        if file.is_file():
            try:
                read_rules(file)
            except ConfigError as error:
                yield from error.mistakes


def named_files(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[KeyPath, str, Path]]:
    for path, model in entries(data):
        if model.get("harness") != "script":
            continue
        rules, tokenizer = model.get("script"), model.get("tokenizer")
        if isinstance(rules, str) and rules:
            yield path, "script", folder / rules
        if isinstance(tokenizer, str) and is_directory(tokenizer):
            yield path, "tokenizer", folder / tokenizer / TOKENIZER


def entries(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    models = data.get("models", [])
    for index, model in enumerate(models if isinstance(models, list) else []):
        if isinstance(model, dict):
            yield ("models", index), model


def read_rules(path: Path) -> Rules:
    """The rules in the file at `path`.  ConfigError with every mistake and its line."""
    document = read_document(path)
    try:
        return structure(document.data, Rules)
    except Mistakes as error:
        raise ConfigError(tell(document, error.found, Rules)) from None


def located(models: tuple[CatalogueModel, ...], folder: Path) -> tuple[CatalogueModel, ...]:
    """The entries with the files that they name relative to `folder` written out."""
    catalogue = Catalogue(models)
    return tuple(
        evolve(
            model,
            script=str(folder / model.script),
            tokenizer=locate(model.tokenizer, folder, catalogue),
        )
        if model.is_script
        else model
        for model in models
    )


def locate(tokenizer: str, folder: Path, catalogue: Catalogue) -> str:
    """The directory, or what the store has it under: a model's name stands for that model's source."""
    if is_directory(tokenizer) or (tokenizer and (folder / tokenizer / TOKENIZER).is_file()):
        return str(folder / tokenizer)
    owner = catalogue.resolve(tokenizer) or Catalogue().resolve(tokenizer)
    return owner.wanted if owner is not None and not owner.is_script else tokenizer
