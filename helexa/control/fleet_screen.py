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
    taken = memory(device, plain=plain) if device and node.get("up") else None
    if not is_first:
        return ("", "", named, taken, "", poisoned(device))
    stored = node.get("stored")
    return (
        node.get("name"),
        state(node),
        named,
        taken,
        None if stored is None else len(stored),
        node.get("why_down") or poisoned(device),
    )


def state(node: Json) -> str:
    if not node.get("up"):
        return "down"
    return "draining" if node.get("draining") else "up"


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
            remarks(model),
        )
        for node in others(found)
        for model in node.get("models") or []
    ]
    counts = (">RUNNING", ">WAITING", ">INPUT", ">OUTPUT")
    return table(("NODE", "MODEL", "STATUS", *counts, ""), rows) if rows else []


def remarks(model: Json) -> str:
    """What is out of the ordinary with a model."""
    alone, is_pinned = model.get("alone"), model.get("pinned") is True
    found = (model.get("error"), alone and f"one at a time: {alone}", is_pinned and "pinned")
    return "; ".join(str(each) for each in found if each)


def others(found: list[Json]) -> list[Json]:
    return [node for node in found if node.get("kind") != OWN]


def is_own_draining(found: list[Json]) -> bool:
    return any(node.get("kind") == OWN and node.get("draining") is True for node in found)


def poisoned(device: Json) -> str:
    return "poisoned" if device and device.get("poisoned") else ""
