"""What a device computes in, keeps weights in and attends with, and why not in other ways."""

from collections.abc import Mapping

from attrs import frozen

from helexa.devices.discovery import DeviceInfo
from helexa.devices.fused import why_uncompiled
from helexa.devices.host import cpu_flags
from helexa.engine.orders import Dtype
from helexa.fleet.dtype import BYTES, why_slow
from helexa.fleet.quant import POLICIES, why_not

Ways = Mapping[str, str]  # by its name why it is not for this device, in a clause; "" if it is


@frozen
class Abilities:
    """`dtype` is what models are computed in."""

    dtype: Dtype
    dtypes: Ways
    weights: Ways
    attention: Ways


def abilities_of(device: DeviceInfo, dtype: Dtype) -> Abilities:
    """Of a device of this host."""
    capability, flags = device.compute_capability, cpu_flags()
    return Abilities(
        dtype,
        {each: why_slow(each, capability, flags) for each in BYTES},
        {quant: why_not(quant, capability) for quant in POLICIES},
        {"torch": "", "compiled": why_uncompiled(device.kind, dtype)},
    )
