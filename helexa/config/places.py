"""Where this process keeps its things, from the configuration and the environment."""

from collections.abc import Mapping

from helexa.config.schema import Config, Places
from helexa.control.paths import default_socket, expand, state_directory

__all__ = ["expand", "places"]


def places(config: Config, environ: Mapping[str, str]) -> Places:
    """The state directory, the model store (in it by default) and the control socket, all absolute."""
    state_dir = expand(config.server.state_dir, environ) if config.server.state_dir else None
    state_dir = state_dir or state_directory(environ)
    store_dir = expand(config.store.dir, environ) if config.store.dir else state_dir / "models"
    named = config.control.socket
    socket = expand(named, environ) if named else default_socket(environ, state_dir)
    return Places(state_dir.absolute(), store_dir.absolute(), socket.absolute())
