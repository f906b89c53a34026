"""What `[[nodes]]` must be together, and what their files must be."""

import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from helexa.config.schema import Config, RemoteNode
from helexa.config.structure import Mistake


def node_rules(config: Config) -> Iterator[Mistake]:
    for index, node in enumerate(config.nodes):
        path = ("nodes", index)
        if node.tls_ca and (wrong := ca_mistake(node)):
            yield Mistake((*path, "tls_ca"), wrong, node.tls_ca)
        if node.models and node.kind != "openai":
            text = f"is for openai upstreams: a {node.kind} node serves what it is asked to load"
            yield Mistake((*path, "models"), text)
        if node.max_in_flight and node.kind != "openai":
            text = f"is for openai upstreams: a {node.kind} node keeps its own queue"
            yield Mistake((*path, "max_in_flight"), text)
        if node.inference_endpoints and node.kind != "neuron":
            text = "is for neurons: other nodes answer at their own endpoint"
            yield Mistake((*path, "inference_endpoints"), text)


def ca_mistake(node: RemoteNode) -> str | None:
    if not node.endpoint.startswith("https:"):
        return "is for endpoints that begin with https://"
    if not os.access(node.tls_ca, os.R_OK):
        return "cannot be read by this user"
    try:
        ssl.create_default_context(cafile=node.tls_ca)
    except (OSError, ssl.SSLError):
        return "must hold certificates in PEM form"
    return None


def unique_nodes(data: Mapping[str, Any], config: Config) -> Iterator[Mistake]:
    """Every node has a name and an endpoint of its own.

    Takes data as read, so that other mistakes do not hide these.
    """
    nodes = data.get("nodes", [])
    tables = nodes if isinstance(nodes, list) else []
    names = {config.node.name: "this host's own node"} if config.node.enabled else {}
    yield from repeated(tables, "name", names)
    yield from repeated(tables, "endpoint", {})


def repeated(tables: list[Any], option: str, owners: dict[str, str]) -> Iterator[Mistake]:
    for index, table in enumerate(tables):
        value = table.get(option) if isinstance(table, dict) else None
        if not isinstance(value, str):
            continue
        owner = owners.setdefault(value.rstrip("/"), f"nodes[{index}]")
        if owner != f"nodes[{index}]":
            yield Mistake(("nodes", index, option), f"is the {option} of {owner} too", value)
