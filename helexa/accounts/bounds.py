"""How a cap stands in figures: in tokens, in USD, or in both.  Pure."""

from collections.abc import Iterator
from typing import Literal, get_args

from attrs import frozen

from helexa.accounts.amount import Amount
from helexa.accounts.windows import Standing

Unit = Literal["tokens", "usd"]

UNITS: tuple[Unit, ...] = get_args(Unit)


@frozen
class Bound:
    """One unit of a cap; `remaining` is neither spent nor reserved."""

    unit: Unit
    cap: float
    spent: float
    reserved: float
    remaining: float


def bounds(standing: Standing) -> Iterator[Bound]:
    cap, meter, room = standing.cap, standing.meter, standing.room
    if cap.tokens is not None:
        yield Bound("tokens", cap.tokens, meter.spent.tokens, meter.reserved.tokens, room.tokens)
    if cap.pico_usd is not None:
        most = Amount(0, cap.pico_usd)
        yield Bound("usd", most.usd, meter.spent.usd, meter.reserved.usd, room.usd)
