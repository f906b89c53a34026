"""Where this process keeps its things, from the configuration and the environment."""

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve

from helexa.config.schema import Config, Places
from helexa.control.paths import default_socket, expand, state_directory


def places(config: Config, environ: Mapping[str, str]) -> Places:
    """The state directory, the model store (in it by default) and the control socket, all absolute."""
    named = config.server.state_dir
    state_dir = Path(named) if named else state_directory(environ)
    store_dir = Path(config.store.dir) if config.store.dir else state_dir / "models"
    named = config.control.socket
    socket = Path(named) if named else default_socket(environ, state_dir)
    return Places(state_dir.absolute(), store_dir.absolute(), socket.absolute())


def expand_paths(config: Config, environ: Mapping[str, str]) -> Config:
    """`config` with every `~/` and `credential:` written out."""

    def full(path: str) -> str:
        return str(expand(path, environ)) if path else ""

    store, gateway, node = config.store, config.gateway, config.node
    return evolve(
        config,
        server=evolve(config.server, state_dir=full(config.server.state_dir)),
        gateway=evolve(gateway, tls_cert=full(gateway.tls_cert), tls_key=full(gateway.tls_key)),
        node=evolve(
            node,
            tls_cert=full(node.tls_cert),
            tls_key=full(node.tls_key),
            token_file=full(node.token_file),
        ),
        metrics=evolve(config.metrics, token_file=full(config.metrics.token_file)),
        accounts=evolve(
            config.accounts,
            ledger=full(config.accounts.ledger),
            keys=tuple(evolve(key, key_file=full(key.key_file)) for key in config.accounts.keys),
        ),
        control=evolve(config.control, socket=full(config.control.socket)),
        store=evolve(store, dir=full(store.dir), hf_token_file=full(store.hf_token_file)),
        models=evolve(config.models, catalogue=full(config.models.catalogue)),
        nodes=tuple(
            evolve(remote, token_file=full(remote.token_file), tls_ca=full(remote.tls_ca))
            for remote in config.nodes
        ),
    )
