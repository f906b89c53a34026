"""Where a process keeps its state and its control socket, and where `helexa-ctl` looks for one.

Imports little: `helexa-ctl` starts with it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SOCKET = "helexa.sock"
SERVICE_SOCKET = Path("/run/helexa") / SOCKET
CONFIG = Path("/etc/helexa/helexa.toml")
LONGEST_ADDRESS = 107  # bytes


def home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def expand(text: str, environ: Mapping[str, str]) -> Path:
    """`~/x` under the user's home, `credential:x` where systemd put it; anything else as it stands."""
    if text.startswith("credential:"):
        return Path(environ.get("CREDENTIALS_DIRECTORY", "/nowhere")) / text.partition(":")[2]
    return home(environ) / text[2:] if text.startswith("~/") else Path(text)


def state_directory(environ: Mapping[str, str]) -> Path:
    """systemd's STATE_DIRECTORY (the first of a list), else the XDG place of a user."""
    if service := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(service)
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else home(environ) / ".local/state") / "helexa"


def default_socket(environ: Mapping[str, str], state_dir: Path) -> Path:
    """In systemd's RUNTIME_DIRECTORY for a service; for a user in XDG_RUNTIME_DIR or the state."""
    if service := environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(service) / SOCKET
    if user := environ.get("XDG_RUNTIME_DIR", ""):
        return Path(user) / SOCKET
    return state_dir / SOCKET


def candidates(environ: Mapping[str, str], config: Path = CONFIG) -> list[Path]:
    """Where a daemon's socket may be, the user's own before the system's."""
    return list(dict.fromkeys(_candidates(environ, config)))


def _candidates(environ: Mapping[str, str], config: Path) -> Iterator[Path]:
    if named := environ.get("HELEXA_CONTROL__SOCKET", "").strip("\"'"):
        yield expand(named, environ)
        return
    state = environ.get("HELEXA_SERVER__STATE_DIR", "").strip("\"'")
    state_dir = expand(state, environ) if state else state_directory(environ)
    yield default_socket(environ, state_dir)
    yield state_dir / SOCKET
    if configured := socket_in(config):
        yield expand(configured, environ)
    yield SERVICE_SOCKET


def socket_in(config: Path) -> str:
    """`[control] socket` of the system's configuration, if that is to be had."""
    if not os.access(config, os.R_OK):
        return ""
    import tomllib

    try:
        found = tomllib.loads(config.read_text(encoding="utf-8")).get("control", {}).get("socket")
    except (OSError, ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) else ""


@contextmanager
def within_limit(path: Path) -> Iterator[str]:
    """An address of the socket `path` that fits the 107 bytes of a Unix address, whatever its length."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
