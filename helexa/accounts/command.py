"""`helexa restore FILE`: put a backup in the place of what is there, while no helexa runs."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from helexa.accounts.backup import CATALOGUE, CONFIG, LEDGER, Restored, restore
from helexa.config.places import places
from helexa.config.read import DEFAULT_CATALOGUE, DEFAULT_CONFIG, read_config
from helexa.config.schema import Config
from helexa.state import open_state


def register(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    parents: Sequence[argparse.ArgumentParser],
) -> None:
    text = "bring back what `helexa-ctl backup` wrote"
    made = verbs.add_parser("restore", parents=parents, help=text, description=text)
    made.add_argument("file", type=Path, metavar="FILE")
    made.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError for a file that is no backup, StateInUse while a helexa runs."""
    is_there = args.config is not None and args.config.exists()
    config = read_config(args.config if is_there else None, os.environ)
    where = places(config, os.environ)
    with open_state(where.state_dir):
        done = restore(
            args.file,
            where.state_dir,
            ledger_path(config, where.state_dir),
            {
                CONFIG: args.config or DEFAULT_CONFIG,
                CATALOGUE: Path(config.models.catalogue)
                if config.models.catalogue
                else DEFAULT_CATALOGUE,
            },
        )
    print("\n".join(told(args.file, done)))
    return 0


def ledger_path(config: Config, state_dir: Path) -> Path:
    return Path(config.accounts.ledger) if config.accounts.ledger else state_dir / LEDGER


def told(file: Path, done: Restored) -> list[str]:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.made_at))
    lines = [f"{file}, made {made}, is restored; what was spent since then is forgotten"]
    lines += [f"  written  {path}" for path in done.written]
    lines += [f"  kept     {path}; that of the backup is in {done.beside}" for path in done.kept]
    return lines
