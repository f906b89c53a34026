"""What the options must be together: each rule looks at a whole configuration and names its mistakes."""

import difflib
import os
import ssl
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from helexa.config.checks import NAME
from helexa.config.schema import Config, Metrics, Node
from helexa.config.structure import Mistake
from helexa.fleet.catalogue import Catalogue
from helexa.http.address import check_binding, split_address
from helexa.http.tls import server_context


def config_rules(config: Config) -> Iterator[Mistake]:
    yield from roles(config)
    yield from doors(config)
    yield from addresses(config)
    yield from certificates(config)
    yield from token_file(config)


def roles(config: Config) -> Iterator[Mistake]:
    if not (config.gateway.enabled or config.node.enabled):
        text = "is false and so is node.enabled, which leaves nothing to run: enable one of them"
        yield Mistake(("gateway", "enabled"), text, follows=(("node", "enabled"),))


def doors(config: Config) -> Iterator[Mistake]:
    """Nobody opens a port to a network by accident."""
    for section, listener in listeners(config).items():
        is_gateway = section == "gateway"
        is_guarded = config.accounts.require_auth if is_gateway else has_token(listener)
        needed = "accounts.require_auth" if is_gateway else "a token"
        if text := check_binding(listener.listen, is_guarded, listener.allow_open, needed):
            follows = ((section, "allow_open"), (section, "token"), ("accounts", "require_auth"))
            yield Mistake((section, "listen"), text, follows=follows)


def has_token(listener: Node | Metrics) -> bool:
    return bool(listener.token or listener.token_hash)


def addresses(config: Config) -> Iterator[Mistake]:
    for (first, one), (second, two) in combinations(listeners(config).items(), 2):
        same = split_address(one.listen) == split_address(two.listen)
        if same and split_address(one.listen)[1] != 0:
            text = f"is the address of {first}.listen too: give each its own port"
            yield Mistake((second, "listen"), text, two.listen, ((first, "listen"),))


def certificates(config: Config) -> Iterator[Mistake]:
    """A listener that is to speak TLS can."""
    for section, listener in listeners(config).items():
        cert, key = getattr(listener, "tls_cert", ""), getattr(listener, "tls_key", "")
        missing = "tls_key" if cert and not key else "tls_cert" if key and not cert else ""
        if missing:
            other = "tls_cert" if missing == "tls_key" else "tls_key"
            yield Mistake((section, missing), f"is missing beside {other}: TLS needs both")
        elif cert:
            try:
                server_context(Path(cert), Path(key))
            except (OSError, ssl.SSLError) as error:
                reason = error.strerror or error.args[-1]
                yield Mistake((section, "tls_cert"), f"cannot be used with {key}: {reason}", cert)


def token_file(config: Config) -> Iterator[Mistake]:
    file = config.store.hf_token_file
    if file and not os.access(file, os.R_OK):
        yield Mistake(("store", "hf_token_file"), "cannot be read by this user", file)


def named_catalogue(config: Config) -> Iterator[Mistake]:
    file = config.models.catalogue
    if file and not os.access(file, os.R_OK):
        text = (
            "cannot be read by this user" if os.path.exists(file) else "names no file that is there"
        )
        yield Mistake(("models", "catalogue"), text, file)


def listeners(config: Config) -> dict[str, Any]:
    """The sections that open a port."""
    found: dict[str, Any] = {}
    if config.gateway.enabled:
        found["gateway"] = config.gateway
    if config.node.enabled:
        found["node"] = config.node
    return {**found, "metrics": config.metrics}


def preload_rules(config: Config, catalogue: Catalogue) -> Iterator[Mistake]:
    known = [name for name, _ in catalogue.names()]
    for index, model in enumerate(config.models.preload):
        if model not in known:
            text = f'names "{model}", which is not in the catalogue{nearest(model, known)}'
            yield Mistake(("models", "preload", index), text, follows=(("models", "catalogue"),))


def catalogue_rules(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """Every id and alias names one model.  Takes data as read, so that other mistakes do not hide these."""
    models = data.get("models", [])
    models = (
        [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    )
    owners: dict[str, str] = {}
    for index, model in enumerate(models):
        if isinstance(name := model.get("id"), str):
            if name in owners:
                yield Mistake(("models", index, "id"), f"is the id of {owners[name]} too", name)
            owners.setdefault(name, f"models[{index}]")
    for index, model in enumerate(models):
        aliases = model.get("aliases", [])
        for place, alias in enumerate(aliases if isinstance(aliases, list) else []):
            path = ("models", index, "aliases", place)
            if alias == model.get("id"):
                yield Mistake(path, "is the model's own id", alias)
            elif isinstance(alias, str) and alias in owners:
                yield Mistake(path, f"is a name of {owners[alias]} already", alias)
            elif isinstance(alias, str):
                owners[alias] = f"models[{index}]"


def pinning_rules(data: Mapping[str, Any], config: Config) -> Iterator[Mistake]:
    """Models are pinned on nodes that there are; only a gateway knows which."""
    if not config.gateway.enabled:
        return
    known = [*([config.node.name] if config.node.enabled else []), *(n.name for n in config.nodes)]
    models = data.get("models", [])
    for index, model in enumerate(models if isinstance(models, list) else []):
        pinned = model.get("pinned_on", []) if isinstance(model, dict) else []
        for place, node in enumerate(pinned if isinstance(pinned, list) else []):
            if isinstance(node, str) and NAME.fullmatch(node) and node not in known:
                text = f"is no node of this fleet{nearest(node, known)}"
                yield Mistake(("models", index, "pinned_on", place), text, node)


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""
