"""`helexa check`: say whether the configuration is fine and what it would serve."""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

from helexa.config.places import places
from helexa.config.read import catalogue_file, config_file, config_warnings, read_all
from helexa.config.rules import listeners
from helexa.config.schema import Config
from helexa.errors import ConfigError
from helexa.escape import escape
from helexa.fleet.catalogue import Catalogue


def run(args: Namespace) -> int:
    """Check `args.config` (a path, or None for the usual place).  Returns the exit code, 0 or 2."""
    path = Path(args.config) if args.config else None
    try:
        config, catalogue = read_all(path, os.environ)
    except ConfigError as error:
        print_mistakes(error)
        return 2
    for warning in config_warnings(path, config):
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join(report(path, config, catalogue, os.environ)))
    return 0


def print_mistakes(error: ConfigError) -> None:
    """Every mistake on standard error, and how many there are."""
    count = len(error.mistakes)
    print("\n".join(error.mistakes), file=sys.stderr)
    print(f"{count} mistake{'s' if count > 1 else ''}; nothing was started", file=sys.stderr)


def report(
    path: Path | None, config: Config, catalogue: Catalogue, environ: Mapping[str, str]
) -> Iterator[str]:
    file, models = config_file(path), catalogue_file(config)
    where = places(config, environ)
    yield "configuration is fine"
    yield f"  from       {file or 'built-in defaults'}"
    for section, listener in listeners(config).items():
        yield f"  {section:<10} {listener.listen}"
    yield f"  state      {where.state_dir}"
    yield f"  store      {where.store_dir}"
    yield f"  socket     {where.socket}"
    yield f"  catalogue  {models or 'built in'}"
    for model in catalogue.models:
        aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
        loaded = " loaded at the first start" if is_preloaded(config, catalogue, model.id) else ""
        yield f"    {escape(model.id)}{escape(aliases)}{loaded}"


def is_preloaded(config: Config, catalogue: Catalogue, model_id: str) -> bool:
    found = (catalogue.resolve(name) for name in config.models.preload)
    return any(model is not None and model.id == model_id for model in found)
