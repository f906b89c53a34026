"""What `helexa-ctl status` shows of a gateway's other nodes.  Pure functions over JSON."""

from typing import Any

from helexa.control.layout import memory, table

Json = Any

OWN = "local"  # this process's own node: its devices and models are shown in full


def nodes(found: list[Json], *, plain: bool = False) -> list[str]:
    """A line for each device of each other node, and of one without devices a line for itself."""
    rows = [
        node_row(node, device, is_first=index == 0, plain=plain)
        for node in others(found)
        for index, device in enumerate(node.get("devices") or [None])
    ]
    return table(("NODE", "STATE", "DEVICE", "MEMORY", ">STORED", ""), rows) if rows else []


def node_row(node: Json, device: Json, *, is_first: bool, plain: bool) -> tuple[Any, ...]:
    named = f"{device.get('index', '?')} {device.get('name', '')}".rstrip() if device else None
    taken = memory(device, plain=plain) if device else None
    if not is_first:
        return ("", "", named, taken, "", poisoned(device))
    stored = node.get("stored")
    return (
        node.get("name"),
        "up" if node.get("up") else "down",
        named,
        taken,
        None if stored is None else len(stored),
        node.get("why_down") or poisoned(device),
    )


def models(found: list[Json]) -> list[str]:
    """The models of all other nodes."""
    rows = [
        (
            node.get("name"),
            model.get("id"),
            model.get("status"),
            model.get("in_flight"),
            model.get("queue_depth"),
            (model.get("limit") or {}).get("input"),
            (model.get("limit") or {}).get("output"),
            model.get("error") or "",
        )
        for node in others(found)
        for model in node.get("models") or []
    ]
    counts = (">RUNNING", ">WAITING", ">INPUT", ">OUTPUT")
    return table(("NODE", "MODEL", "STATUS", *counts, ""), rows) if rows else []


def others(found: list[Json]) -> list[Json]:
    return [node for node in found if node.get("kind") != OWN]


def poisoned(device: Json) -> str:
    return "poisoned" if device and device.get("poisoned") else ""
