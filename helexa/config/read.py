"""Reading the configuration and the catalogue: strictly, and with every mistake at once."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import frozen

from helexa.config.account_rules import account_rules, account_warnings
from helexa.config.document import Document, read_document
from helexa.config.environment import override
from helexa.config.lines import KeyPath
from helexa.config.node_rules import node_rules, unique_nodes
from helexa.config.places import expand_paths
from helexa.config.rules import (
    catalogue_rules,
    config_rules,
    named_catalogue,
    pinning_rules,
    preload_rules,
)
from helexa.config.schema import Config
from helexa.config.script import located, missing_files, rules_mistakes, script_rules
from helexa.config.secrets import holds_secrets, secret_files, with_secrets
from helexa.config.structure import Mistake, Mistakes, structure
from helexa.config.told import tell
from helexa.errors import ConfigError
from helexa.fleet.catalogue import Catalogue, CatalogueModel

DEFAULT_CONFIG = Path("/etc/helexa/helexa.toml")
DEFAULT_CATALOGUE = Path("/etc/helexa/models.toml")

T = TypeVar("T")


@frozen
class CatalogueFile:
    """`models.toml`: unlike our own catalogue, one that names no model has none."""

    models: tuple[CatalogueModel, ...] = ()


@frozen
class Draft:
    """A configuration that may be wrong: `config` has the default where there is a mistake."""

    config: Config
    document: Document
    mistakes: list[Mistake]
    unreadable: list[str]  # why the file could not be read at all

    def told(self) -> list[str]:
        return self.unreadable + tell(self.document, self.mistakes, Config)


def read_config(
    path: Path | None, environ: Mapping[str, str], default: Path = DEFAULT_CONFIG
) -> Config:
    """The configuration in `path`, else in `default` if it is there, under the environment's.

    Raises ConfigError with every mistake in words, its place and the line it stands on.
    """
    draft = read_draft(path, environ, default)
    if draft.told():
        raise ConfigError(draft.told())
    return draft.config


def read_catalogue(config: Config, default: Path = DEFAULT_CATALOGUE) -> Catalogue:
    """The catalogue that `config` names, else that in `default` if it is there, else our own.

    Raises ConfigError with every mistake; a file that is named must be there, and one that an entry
    names too if this host has a node.
    """
    path = catalogue_file(config, default)
    if path is None:
        return Catalogue()
    document, folder = read_document(path), path.parent.absolute()
    found = [
        *catalogue_rules(document.data),
        *pinning_rules(document.data, config),
        *script_rules(document.data),
    ]
    if config.node.enabled:
        found += missing_files(document.data, folder)
    try:
        models = structure(document.data, CatalogueFile).models
    except Mistakes as error:
        found += error.found
    told = tell(document, found, CatalogueFile)
    if config.node.enabled:
        told += rules_mistakes(document.data, folder)
    if told:
        raise ConfigError(told)
    return Catalogue(located(models, folder))


def read_all(
    path: Path | None,
    environ: Mapping[str, str],
    default: Path = DEFAULT_CONFIG,
    default_catalogue: Path = DEFAULT_CATALOGUE,
) -> tuple[Config, Catalogue]:
    """Configuration and catalogue, each checked and against each other; ConfigError with all mistakes."""
    draft = read_draft(path, environ, default)
    if missing := list(named_catalogue(draft.config)):
        raise ConfigError(attrs.evolve(draft, mistakes=draft.mistakes + missing).told())
    try:
        catalogue = read_catalogue(draft.config, default_catalogue)
    except ConfigError as error:
        raise ConfigError(draft.told() + error.mistakes) from None
    draft = attrs.evolve(
        draft, mistakes=draft.mistakes + list(preload_rules(draft.config, catalogue))
    )
    if draft.told():
        raise ConfigError(draft.told())
    return draft.config, catalogue


def config_warnings(path: Path | None, config: Config, default: Path = DEFAULT_CONFIG) -> list[str]:
    """What is allowed and yet not well, one sentence each."""
    return [
        *file_warnings(config_file(path, default), config, default),
        *secret_warnings(config),
        *account_warnings(config.accounts),
    ]


def secret_warnings(config: Config) -> Iterator[str]:
    """A group may read them: it is how root gives a secret to a service."""
    for file in secret_files(config):
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o007:
            yield f"{file} holds a secret and everybody may open it (mode {mode:04o}): chmod o= {file}"


def file_warnings(file: Path | None, config: Config, default: Path) -> Iterator[str]:
    if file is None:
        if default.exists():
            yield f"{default} cannot be read by this user; the defaults apply"
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077 and holds_secrets(config):
        yield f"{file} holds a token and others may read it (mode {mode:04o}): chmod 600 {file}"


def config_file(path: Path | None, default: Path = DEFAULT_CONFIG) -> Path | None:
    """The file that is read; None for the defaults that are built in."""
    return path or (default if os.access(default, os.R_OK) else None)


def catalogue_file(config: Config, default: Path = DEFAULT_CATALOGUE) -> Path | None:
    """The catalogue that is read; None for the one that is built in."""
    if config.models.catalogue:
        return Path(config.models.catalogue)
    return default if default.exists() else None


def read_draft(path: Path | None, environ: Mapping[str, str], default: Path) -> Draft:
    file, document, unreadable = config_file(path, default), Document(), []
    if file is not None:
        try:
            document = read_document(file)
        except ConfigError as error:
            unreadable = error.mistakes
    document = override(document, environ, Config)
    config, found = fit(document.data)
    config, secrets = with_secrets(expand_paths(config, environ))
    if not unreadable:
        found += independent(secrets, found)
        found += independent(config_rules(config), found)
        found += independent(node_rules(config), found)
        found += unique_nodes(document.data, config)
        found += independent(account_rules(config.accounts), found)
    return Draft(config, document, found, unreadable)


def fit(data: Mapping[str, Any]) -> tuple[Config, list[Mistake]]:
    """`data` as far as it fits, and what does not."""
    try:
        return structure(data, Config), []
    except Mistakes as error:
        rest = data
        for mistake in error.found:
            rest = without(rest, mistake.path[:2])
        return structure(rest, Config), error.found


def without(data: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """A copy of `data` that has nothing at `path`, and no list that `path` leads into."""
    name, *rest = path
    others = {key: value for key, value in data.items() if key != name}
    inner = data.get(str(name))
    if rest and isinstance(inner, dict):
        others[str(name)] = without(inner, tuple(rest))
    return others


def independent(more: Iterable[Mistake], found: list[Mistake]) -> list[Mistake]:
    """Those of `more` that do not follow from what is `found` already."""
    wrong = {mistake.path[:2] for mistake in found}
    return [one for one in more if wrong.isdisjoint({one.path[:2], *one.follows})]
