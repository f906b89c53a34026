"""`helexa models fit`: what of a model fits which device, told before anything is downloaded."""

import json

from attrs import asdict, frozen

from helexa.config.schema import Config
from helexa.devices.discovery import DeviceInfo, discover
from helexa.devices.fused import fused_here
from helexa.devices.host import cpu_flags
from helexa.engine.orders import Dtype
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.dtype import choose_dtype
from helexa.fleet.fit import Fit, fits, size_of
from helexa.fleet.known import Size
from helexa.fleet.limits import Terms
from helexa.fleet.placement import Room
from helexa.store.facts import ModelFiles, read_facts
from helexa.store.nodes import nodes_of
from helexa.store.preview import outline
from helexa.store.store import Store

ROW = "    {:<10} {:>10} {:>8} {:>9} {:>9}"


@frozen
class OnDevice:
    """What fits one device, were it otherwise empty."""

    room: Room
    dtype: Dtype
    fits: tuple[Fit, ...]


def report(
    store: Store, config: Config, source: str, entry: CatalogueModel | None, as_json: bool
) -> str:
    """For every device the policies that fit it.  StoreError if the source cannot be looked at."""
    stored = store.recorded(source)
    files = read_facts(stored.path) if stored else outline(source, config.store, nodes_of(config))
    size, terms = size_of(files), stated(files, config, entry)
    devices = discover(config.node).devices
    found = [on_device(size, terms, config, device) for device in devices]
    if as_json:
        return json.dumps({"source": source, "devices": [asdict(each) for each in found]}, indent=2)
    return "\n".join([heading(source, files, size), *map(told, found)])


def stated(files: ModelFiles, config: Config, entry: CatalogueModel | None) -> Terms:
    entry = entry or CatalogueModel(id="unnamed")
    return Terms(
        positions=files.facts.max_position_embeddings,
        max_context=entry.max_context,
        output_reserve=entry.output_reserve,
        max_prompt_tokens=config.limits.max_prompt_tokens,
        kv_budget_mb=entry.kv_budget_mb,
        kv_dtype=entry.kv_dtype,
    )


def on_device(size: Size, terms: Terms, config: Config, device: DeviceInfo) -> OnDevice:
    capability = device.compute_capability
    dtype = choose_dtype(config.engine.dtype, capability, cpu_flags())
    room = Room(device.index, device.name, device.usable_mb, device.usable_mb)
    fused = fused_here(device.kind, dtype)
    return OnDevice(room, dtype, tuple(fits(size, terms, dtype, room, capability, fused)))


def heading(source: str, files: ModelFiles, size: Size) -> str:
    share = size.packable.all / max(1, size.num_parameters)
    return (
        f"{source}: {size.num_parameters / 1e6:.0f} million parameters, {min(share, 1):.0%} of them "
        f"in layers that can be packed; {files.facts.max_position_embeddings} positions"
    )


def told(device: OnDevice) -> str:
    room = device.room
    lines = [
        f"device {room.index}: {room.name}, {device.dtype}, {room.total_mb} MB, "
        f"of which {room.spare_mb} MB stay spare",
        ROW.format("quant", "weights MB", "KV MB", "context", "input"),
    ]
    for fit in device.fits:
        if fit.reason:
            lines.append(f"    {fit.quant:<10} {fit.weights_mb:>10} {fit.reason}")
        else:
            lines.append(ROW.format(fit.quant, fit.weights_mb, fit.kv_mb, fit.context, fit.input))
    return "\n".join(lines)
