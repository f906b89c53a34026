"""`helexa init`: a configuration to begin with, for one machine or for a network of them."""

import argparse
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from helexa.accounts.keys import new_secret, plain_hash
from helexa.config.checks import is_name, is_url
from helexa.config.read import DEFAULT_CONFIG
from helexa.errors import InvalidRequest

GATEWAY_PORT, NODE_PORT = 31313, 13131


@frozen
class Host:
    """A further machine of the fleet: its name, and where its node listens."""

    name: str
    url: str


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help = "write a configuration to begin with"
    made = verbs.add_parser("init", help=help, description=help)
    made.add_argument(
        "--config", type=Path, metavar="F", default=DEFAULT_CONFIG, help="where to write it"
    )
    made.add_argument(
        "--lan", action="store_true", help="let other machines in, with a key of their own"
    )
    made.add_argument(
        "--node",
        dest="hosts",
        action="append",
        type=host,
        default=[],
        metavar="NAME=URL",
        help="a further machine of the fleet, such as gpu2=http://gpu2.lan:13131",
    )
    made.set_defaults(run=run)


def host(text: str) -> Host:
    name, _, url = text.partition("=")
    url = url or f"http://{name}:{NODE_PORT}"
    if not is_name(name) or not is_url(url):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name and a URL, NAME=URL")
    return Host(name, url)


def run(args: argparse.Namespace) -> int:
    """Write the file, which must not be there yet, and tell what to do next."""
    key, token = new_secret(), secrets.token_urlsafe(32)
    lan = args.lan or bool(args.hosts)
    lines = list(written(args.hosts, key, token) if lan else alone())
    write_new(args.config, "\n".join([*lines, ""]))
    print(f"{args.config} is written.")
    if lan:
        print("\n".join(told(args.hosts, key, token, args.config)))
    else:
        print(f"Start with: helexa serve --config {args.config}")
    return 0


def write_new(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidRequest(f"{path} is there already; nothing was changed.") from None
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be written: {error.strerror}; --config names another file."
        ) from None
    with open(descriptor, "w") as file:
        file.write(text)


# -- what is written -----------------------------------------------------------------------------------


def alone() -> Iterator[str]:
    yield "# One machine that serves itself.  `helexa init --lan` is for a network."
    yield "# Every option with its default: conf/helexa.toml, docs/configuration.md."
    yield ""
    yield "[gateway]"
    yield f'listen = "127.0.0.1:{GATEWAY_PORT}"'


def written(hosts: Sequence[Host], key: str, token: str) -> Iterator[str]:
    yield "# The gateway of a fleet, for every machine of this network that has a key."
    yield "# Every option with its default: conf/helexa.toml, docs/configuration.md."
    yield ""
    yield "[gateway]"
    yield f'listen = "0.0.0.0:{GATEWAY_PORT}"'
    yield ""
    yield "[accounts]"
    yield "require_auth = true"
    yield ""
    yield "# The key itself is kept nowhere; `helexa-ctl keys create` makes further ones."
    yield "[[accounts.keys]]"
    yield f'key_hash = "{plain_hash(key.encode())}"'
    yield 'account_id = "home"'
    yield 'key_id = "first"'
    for each in hosts:
        yield ""
        yield from node_block(each, token)
    if not hosts:
        yield ""
        yield "# One such table for each further machine:"
        yield from (f"# {line}" for line in node_block(example(), token))


def node_block(host: Host, token: str) -> Iterator[str]:
    yield "[[nodes]]"
    yield f'name = "{host.name}"'
    yield f'endpoint = "{host.url}"'
    yield f'token = "{token}"'


def example() -> Host:
    return Host("gpu2", f"http://gpu2.lan:{NODE_PORT}")


def told(hosts: Sequence[Host], key: str, token: str, path: Path) -> Iterator[str]:
    yield ""
    yield "The first key, which is shown only now:"
    yield f"  {key}"
    yield f"Clients: http://{socket.gethostname()}:{GATEWAY_PORT}/v1 and this key."
    yield ""
    yield "On each further machine, as /etc/helexa/helexa.toml (chmod 600):"
    yield ""
    yield "  [gateway]"
    yield "  enabled = false"
    yield ""
    yield "  [node]"
    yield f'  name = "{hosts[0].name if len(hosts) == 1 else "NAME"}"'
    yield f'  listen = "0.0.0.0:{NODE_PORT}"'
    yield f'  token = "{token}"'
    if not hosts:
        yield ""
        yield f"and for each of them in {path}:"
        yield ""
        yield from (f"  {line}" for line in node_block(example(), token))
    yield ""
    yield f"Start with: helexa serve --config {path}"
