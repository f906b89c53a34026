"""What a key gets of a busy model, its weight and its priority, and how a gateway tells a node."""

from collections.abc import Iterable
from typing import Literal, get_args

from attrs import frozen

from helexa.errors import InvalidRequest

Priority = Literal["interactive", "batch"]

PRIORITIES: tuple[Priority, ...] = get_args(Priority)
WEIGHT, PRIORITY = b"x-helexa-weight", b"x-helexa-priority"
MAX_WEIGHT = 1000


@frozen
class Share:
    """A key of weight 2 gets twice the tokens of one of weight 1 while both wait; batch waits for
    interactive."""

    weight: int = 1
    priority: Priority = "interactive"


def share_of(headers: Iterable[tuple[bytes, bytes]]) -> Share:
    """What a gateway says of its principal, for a node that believes it; InvalidRequest for nonsense.

    Names of headers are in lower case; what is not said is as `Share` has it.
    """
    said = dict(headers)
    weight = said.get(WEIGHT, b"1")
    if not (weight.isdigit() and len(weight) <= 4 and 1 <= int(weight) <= MAX_WEIGHT):
        raise InvalidRequest(f"{WEIGHT.decode()} must be a whole number from 1 to {MAX_WEIGHT}.")
    asked = said.get(PRIORITY, b"interactive").decode("latin-1")
    for priority in PRIORITIES:
        if asked == priority:
            return Share(int(weight), priority)
    raise InvalidRequest(f"{PRIORITY.decode()} must be one of {', '.join(PRIORITIES)}.")


def share_headers(share: Share) -> list[tuple[bytes, bytes]]:
    """The headers that `share_of` reads."""
    return [(WEIGHT, b"%d" % share.weight), (PRIORITY, share.priority.encode())]
