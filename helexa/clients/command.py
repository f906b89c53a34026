"""`helexa client-config`: a ready configuration for a client, with the gateway's real limits."""

import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable, Mapping
from pathlib import Path

from helexa.clients import agents, programs
from helexa.clients.offer import ClientConfig, Offer, choose, read_models
from helexa.config.schema import Config
from helexa.errors import HelexaError

ON_THIS_HOST = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # who listens everywhere

CLIENTS: Mapping[str, Callable[[Offer], ClientConfig]] = {
    "opencode": agents.opencode,
    "claude-code": agents.claude_code,
    "codex": agents.codex,
    "zed": agents.zed,
    "continue": programs.continue_dev,
    "aider": programs.aider,
    "llm": programs.llm,
    "agent-zero": programs.agent_zero,
    "open-webui": programs.open_webui,
    "litellm": programs.litellm,
}


def register(
    verbs: "_SubParsersAction[ArgumentParser]", parents: list[ArgumentParser]
) -> ArgumentParser:
    made = verbs.add_parser(
        "client-config", parents=parents, help="print a ready configuration for a client"
    )
    made.add_argument("client", choices=CLIENTS, metavar="CLIENT", help=", ".join(CLIENTS))
    made.add_argument("--model", metavar="M", help="the model to use; default: the first listed")
    made.add_argument(
        "--small-model", metavar="M", help="for titles and the like; default: the same, so no swap"
    )
    made.add_argument("--url", metavar="URL", help="the gateway; default: as configured here")
    made.add_argument(
        "--write",
        type=Path,
        metavar="DIR",
        help="write the files into DIR instead of printing them",
    )
    return made


def run(args: Namespace, config: Config) -> int:
    """The configuration on standard output, what to do with it on standard error."""
    from helexa.clients.listing import fetch_models  # HTTP, which no other command needs

    url = args.url or gateway_url(config)
    offer = choose(url, read_models(fetch_models(url)), args.model, args.small_model)
    made = CLIENTS[args.client](offer)
    if args.write is not None:
        write(made, args.write)
    else:
        print("\n".join(text_of(made)), end="")
    for note in made.notes:
        print(note, file=sys.stderr)
    return 0


def gateway_url(config: Config) -> str:
    host, _, port = config.gateway.listen.rpartition(":")
    return f"http://{ON_THIS_HOST.get(host, host)}:{port}"


def text_of(made: ClientConfig) -> list[str]:
    """One file as it is; of several each under its path."""
    if len(made.files) == 1:
        print(f"For {made.files[0].path}:", file=sys.stderr)
        return [made.files[0].text]
    return [f"# {file.path}\n{file.text}" for file in made.files]


def write(made: ClientConfig, directory: Path) -> None:
    """Never over a file that is there already: it may hold what the user wrote."""
    for file in made.files:
        path = directory / Path(file.path).name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with path.open("x") as out:
                out.write(file.text)
        except OSError as error:
            raise HelexaError(f"{path} cannot be written: {error.strerror}") from None
        print(f"{path}: for {file.path}", file=sys.stderr)
