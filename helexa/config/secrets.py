"""Secrets that lie in files of their own, or come from systemd, instead of in the configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from attrs import evolve

from helexa.config import checks
from helexa.config.lines import KeyPath
from helexa.config.schema import AccountKey, Config, Metrics, Node, RemoteNode
from helexa.config.structure import Mistake

TOKENS = ("token", "token_hash", "token_file")  # what is sent cannot be a hash, so nodes have none

Holder = TypeVar("Holder", Node, Metrics, RemoteNode)


def with_secrets(config: Config) -> tuple[Config, list[Mistake]]:
    """`config` with what its files hold in the place of tokens and keys, and what is wrong with them."""
    mistakes = list(file_mistakes(config))
    wrong = {mistake.path for mistake in mistakes}
    read = evolve(
        config,
        node=with_token(config.node, ("node",), wrong),
        metrics=with_token(config.metrics, ("metrics",), wrong),
        nodes=tuple(
            with_token(remote, ("nodes", index), wrong) for index, remote in enumerate(config.nodes)
        ),
        accounts=evolve(
            config.accounts,
            keys=tuple(
                with_key(key, ("accounts", "keys", index), wrong)
                for index, key in enumerate(config.accounts.keys)
            ),
        ),
    )
    return read, mistakes


def file_mistakes(config: Config) -> Iterator[Mistake]:
    yield from token_file_mistakes(config.node, ("node",))
    yield from token_file_mistakes(config.metrics, ("metrics",))
    for index, remote in enumerate(config.nodes):
        yield from token_file_mistakes(remote, ("nodes", index))
    for index, key in enumerate(config.accounts.keys):
        yield from mistake_of(key.key_file, ("accounts", "keys", index, "key_file"))


def token_file_mistakes(holder: Node | Metrics | RemoteNode, path: KeyPath) -> Iterator[Mistake]:
    given = [name for name in TOKENS if getattr(holder, name, "")]
    for name in given[1:]:
        yield Mistake((*path, name), f"stands beside {given[0]}: leave one of them out")
    if given == ["token_file"]:
        yield from mistake_of(holder.token_file, (*path, "token_file"))


def mistake_of(file: str, path: KeyPath) -> Iterator[Mistake]:
    if file and (wrong := token_mistake(Path(file))):
        yield Mistake(path, wrong, file)


def token_mistake(file: Path) -> str | None:
    try:
        text = file.read_text().strip()
        checks.token(None, None, text)
    except OSError:
        return "cannot be read by this user"
    except ValueError:  # not a token, or not even text
        return "must hold printable ASCII characters without spaces"
    return None if text else "is empty"


def with_token(holder: Holder, path: KeyPath, wrong: set[KeyPath]) -> Holder:
    if not holder.token_file or (*path, "token_file") in wrong:
        return holder
    return evolve(holder, token=Path(holder.token_file).read_text().strip())


def with_key(key: AccountKey, path: KeyPath, wrong: set[KeyPath]) -> AccountKey:
    if not key.key_file or key.key or (*path, "key_file") in wrong:
        return key
    return evolve(key, key=Path(key.key_file).read_text().strip())


def secret_files(config: Config) -> Iterator[Path]:
    """The files that hold a token or a key and nothing else."""
    named = (
        config.node.token_file,
        config.metrics.token_file,
        *(remote.token_file for remote in config.nodes),
        *(key.key_file for key in config.accounts.keys),
    )
    return map(Path, dict.fromkeys(filter(None, named)))


def holds_secrets(config: Config) -> bool:
    """Whether the configuration itself has a token or key in it."""
    return any(
        [
            config.node.token and not config.node.token_file,
            config.metrics.token and not config.metrics.token_file,
            *(remote.token and not remote.token_file for remote in config.nodes),
            *(key.key and not key.key_file for key in config.accounts.keys),
        ]
    )
