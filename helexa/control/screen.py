"""What `helexa-ctl` shows of what the daemon tells.  Pure functions over JSON.

A field that is missing is left out, so that an older or newer daemon can be shown too.
"""

from collections.abc import Iterator
from typing import Any

from helexa.control import fleet_screen
from helexa.control.layout import clock, duration, gigabytes, memory, seconds, table
from helexa.escape import escape

Json = Any

ROLES = ("gateway", "node", "metrics")
MOST_ERRORS = 5


def status(told: Json, *, plain: bool = False) -> str:
    """The whole state of one process; `plain` keeps to ASCII."""
    parts = [
        list(heading(told)),
        list(roles(told)),
        devices(told.get("devices") or [], plain=plain),
        abilities(told.get("devices") or []),
        models(told.get("models") or []),
        fleet_screen.nodes(told.get("nodes") or [], plain=plain),
        fleet_screen.models(told.get("nodes") or []),
        list(errors(told.get("errors") or [])),
        list(open_work(told.get("open") or {})),
    ]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    return text.replace("·", "-").replace("°", "") if plain else text


def heading(told: Json) -> Iterator[str]:
    activation = told.get("activation") or {}
    words = [f"helexa {escape(str(told.get('version', '?')))}"]
    if "uptime_secs" in told:
        words.append(f"up {duration(told['uptime_secs'])}")
    if "state" in activation:
        words.append(escape(activation["state"]))
    yield " · ".join(words)
    for what in ("loading", "pending"):
        if names := activation.get(what):
            yield f"{what}: {escape(', '.join(map(str, names)))}"
    for name in activation.get("failed") or ():
        why = (activation.get("why") or {}).get(name)
        yield escape(f"failed: {name}: {why}" if why else f"failed: {name}")


def roles(told: Json) -> Iterator[str]:
    for role in ROLES:
        if url := (told.get(role) or {}).get("url"):
            is_draining = role == "node" and fleet_screen.is_own_draining(told.get("nodes") or [])
            yield f"{role:<8} {escape(url)}{'  draining' if is_draining else ''}"


def devices(found: list[Json], *, plain: bool) -> list[str]:
    rows = [
        (
            f"{device.get('index', '?')} {device.get('name', '')}",
            memory(device, plain=plain),
            unit(device.get("utilization_percent"), "%"),
            unit(device.get("temperature_c"), "°C"),
            unit(device.get("power_w"), "W"),
            note(device),
        )
        for device in found
    ]
    return table(("DEVICE", "MEMORY", ">LOAD", ">TEMP", ">POWER", ""), rows) if rows else []


def abilities(found: list[Json]) -> list[str]:
    """What each device computes in, keeps weights in and attends with, and why not otherwise."""
    rows = [
        (str(device.get("index", "?")), numbers(can), *can_and_cannot(can))
        for device in found
        if (can := device.get("abilities"))
    ]
    return table(("DEVICE", "NUMBERS", "WEIGHTS", "ATTENTION", ""), rows) if rows else []


def numbers(can: Json) -> str:
    """The format that models are computed in, and the others that the device is made for."""
    others = [name for name, why in ways(can, "dtypes") if not why and name != can.get("dtype")]
    used = str(can.get("dtype", "?"))
    return f"{used} (also {', '.join(others)})" if others else used


def can_and_cannot(can: Json) -> tuple[str, str, str]:
    weights, attention = (
        ", ".join(name for name, why in ways(can, what) if not why)
        for what in ("weights", "attention")
    )
    reasons = [why for what in ("dtypes", "weights", "attention") for _, why in ways(can, what)]
    return weights, attention, "; ".join(filter(None, reasons))


def ways(can: Json, what: str) -> list[tuple[str, str]]:
    return list((can.get(what) or {}).items())


def unit(value: float | None, name: str) -> str | None:
    return None if value is None else f"{value:.0f} {name}"


def note(device: Json) -> str:
    return "poisoned: the process restarts" if device.get("poisoned") else ""


def models(found: list[Json]) -> list[str]:
    """Each with its node where there are several."""
    has_nodes = len({str(model["node"]) for model in found if model.get("node")}) > 1
    rows = [(*([model.get("node")] * has_nodes), *model_row(model)) for model in found]
    counts = (">MEMORY", ">RUNNING", ">WAITING", ">INPUT", ">OUTPUT", ">KV", ">TOK/S")
    headers = (*(["NODE"] * has_nodes), "MODEL", "STATUS", "DEVICE", *counts, "")
    return table(headers, rows) if rows else []


def model_row(model: Json) -> tuple[Any, ...]:
    return (
        model.get("id"),
        model.get("status"),
        ",".join(map(str, model.get("devices") or [])) or None,
        gigabytes(model["vram_used_mb"]) if model.get("vram_used_mb") else None,
        model.get("in_flight"),
        model.get("queue_depth"),
        (model.get("limit") or {}).get("input"),
        (model.get("limit") or {}).get("output"),
        kv(model),
        rate(model.get("tokens_per_second")),
        fleet_screen.remarks(model),
    )


def kv(model: Json) -> str | None:
    """Tokens in the KV pool of those that it has room for."""
    total = model.get("kv_pool_tokens")
    return f"{model.get('kv_tokens', 0)}/{total}" if total else None


def rate(value: float | None) -> str | None:
    return f"{value:.1f}" if value else None


def errors(found: list[Json]) -> Iterator[str]:
    if found:
        yield "LAST ERRORS"
    for error in found[-MOST_ERRORS:]:
        yield f"{clock(error.get('time', 0))}  {escape(str(error.get('message', '')))}"


def open_work(counts: Json) -> Iterator[str]:
    if counts:
        yield "open: " + ", ".join(f"{count} {escape(name)}" for name, count in counts.items())


# -- requests ----------------------------------------------------------------------------------------


def requests(found: list[Json]) -> list[str]:
    times = (">QUEUE", ">LOAD", ">PREFILL", ">DECODE")
    counts = (">IN", ">CACHED", ">OUT", ">TOK/S")
    rows = [
        (
            clock(record.get("time", 0)),
            record.get("request_id"),
            record.get("key"),
            record.get("model"),
            outcome(record),
            seconds(record.get("queue_seconds")),
            seconds(record.get("load_seconds") or None),
            seconds(record.get("prefill_seconds")),
            seconds(record.get("decode_seconds")),
            record.get("prompt_tokens"),
            record.get("cached_tokens"),
            record.get("completion_tokens"),
            rate(record.get("tokens_per_second")),
        )
        for record in found
    ]
    headers = ("TIME", "REQUEST", "KEY", "MODEL", "STATUS", *times, *counts)
    return table(headers, rows) if rows else ["no requests"]


def why_limit(told: Json) -> list[str]:
    """The limit, then each of its terms; an arrow points at the one that binds."""
    limit = told.get("limit") or {}
    promise = "which it keeps while it is loaded"
    if told.get("limit_estimated"):
        promise = "an estimate: a load finds what is free then"
    rows = [
        (
            "->" if term.get("name") == told.get("binds") else "",
            term.get("name"),
            term.get("tokens"),
            term.get("from"),
        )
        for term in told.get("terms") or []
    ]
    return [
        f"{escape(str(told.get('model')))} ({escape(str(told.get('status')))}): context "
        f"{limit.get('context')} = input {limit.get('input')} + output {limit.get('output')}, {promise}",
        *weights(told),
        "",
        *table(("", "TERM", ">TOKENS", "FROM"), rows),
    ]


def weights(told: Json) -> Iterator[str]:
    """How they are kept, and why so where it was not stated."""
    if quant := told.get("quant"):
        reason = told.get("quant_reason")
        yield escape(f"weights: {quant}" + (f" ({reason})" if reason else ""))


def outcome(record: Json) -> str:
    """`200 stop`, `503 rate_limit_exceeded`."""
    how = record.get("code") or record.get("finish") or ""
    return f"{record.get('status', '?')} {how}".rstrip()


def why(record: Json) -> list[str]:
    """One request: its figures in words, then what was decided and when."""
    lines = [f"request {escape(str(record.get('request_id')))}"]
    if own := record.get("client_request_id"):
        lines.append(f"  the client's id  {escape(own)}")
    told = {
        "came": clock(record.get("time", 0)),
        "from": f"{record.get('account')} / {record.get('key')}",
        "model": record.get("model"),
        "node": record.get("node"),
        "dialect": f"{record.get('dialect')}{', streamed' if record.get('stream') else ''}",
        "ended": outcome(record),
        "took": seconds(record.get("seconds")),
        "queue": seconds(record.get("queue_seconds")),
        "load": seconds(record.get("load_seconds") or None),
        "prefill": seconds(record.get("prefill_seconds")),
        "decode": seconds(record.get("decode_seconds")),
        "tokens": tokens(record),
    }
    lines += [f"  {name:<8} {escape(str(value))}" for name, value in told.items() if value]
    lines += [f"  {at:>9.3f} s  {escape(text)}" for at, text in record.get("decisions") or ()]
    return lines


def tokens(record: Json) -> str | None:
    if record.get("prompt_tokens") is None:
        return None
    told = f"{record['prompt_tokens']} in ({record.get('cached_tokens') or 0} cached)"
    told += f", {record.get('completion_tokens') or 0} out"
    speed = rate(record.get("tokens_per_second"))
    return f"{told}, {speed} tok/s" if speed else told


def plan(told: Json) -> Iterator[str]:
    """What would happen if a model were asked for now."""
    yield escape(f"{told.get('model')}: {told.get('why')}")
    if told.get("device") is not None:
        yield escape(f"device   {told['device']}")
    if evict := told.get("evict"):
        busy = set(told.get("busy") or ())
        names = (
            f"{model} (busy: it goes when it is idle)" if model in busy else model
            for model in evict
        )
        yield escape(f"evicts   {', '.join(names)}")
    if seconds_left := told.get("expected_seconds"):
        yield f"expected {duration(round(seconds_left))}"
