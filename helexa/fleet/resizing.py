"""Which KV pools make room for a model that is to be loaded, and which get it back."""

from collections.abc import Sequence

from attrs import frozen

from helexa.engine.kv.spans import BLOCK, rounded
from helexa.fleet.claim import Claim
from helexa.fleet.placement import Room

WORTH_COPYING = 1 / 8  # of what was granted; a pool grows by less only where that completes it


@frozen
class Holding:
    """The KV pool of a loaded model on device number `device`, in tokens.

    It was granted so many at its load, an advertised prompt was promised its room, and running
    sequences have theirs.
    """

    model: str
    device: int
    tokens: int
    granted_tokens: int
    promised_tokens: int
    running_tokens: int
    bytes_per_token: int

    @property
    def least_tokens(self) -> int:
        return rounded(max(self.promised_tokens, self.running_tokens))

    @property
    def spare_mb(self) -> int:
        """MiB that it could give to others."""
        return max(0, self.tokens - self.least_tokens) * self.bytes_per_token >> 20

    @property
    def missing_tokens(self) -> int:
        """What it gave of what it was granted."""
        return max(0, self.granted_tokens - self.tokens) if self.bytes_per_token else 0

    def smaller_by(self, mb: int) -> int:
        """Tokens of a pool that leaves `mb` MiB, of those that are spare, to others."""
        left = self.tokens + -(mb << 20) // self.bytes_per_token
        return max(self.least_tokens, left // BLOCK * BLOCK)

    def larger_by(self, mb: int) -> int:
        """Tokens of a pool that takes at most `mb` MiB more; of what was granted, if it is worth it."""
        more = (mb << 20) // self.bytes_per_token
        if more >= self.missing_tokens:
            return self.granted_tokens
        grown = (self.tokens + more) // BLOCK * BLOCK
        is_worth_it = grown - self.tokens >= WORTH_COPYING * self.granted_tokens
        return grown if is_worth_it else self.tokens


@frozen
class NewSize:
    model: str
    kv_tokens: int


@frozen
class Gift:
    """MiB that the KV pools of one device make free for a newcomer."""

    device: int
    mb: int


def gift(
    claim: Claim, rooms: Sequence[Room], holdings: Sequence[Holding], *, generous: bool = False
) -> Gift | None:
    """What lets the claim fit the device that lacks least.

    None if no device would have the room although its pools gave all that is neither promised nor in use.
    They give what is lacking for the shortest context; `generous`, up to half of what they could give beyond
    that, for the longest.
    """
    found: list[tuple[int, int, Gift]] = []
    for room in rooms:
        if room.total_mb < claim.min_device_mb:
            continue
        spare_mb = sum(each.spare_mb for each in holdings if each.device == room.index)
        lacking_mb = max(0, claim.required_mb + room.spare_mb - room.free_mb)
        if lacking_mb > spare_mb:
            continue
        wanted_mb = max(lacking_mb, claim.wanted_mb + room.spare_mb - room.free_mb)
        most_mb = lacking_mb + (spare_mb - lacking_mb) // 2 if generous else lacking_mb
        gives = min(wanted_mb, most_mb)
        found.append((lacking_mb, wanted_mb - gives, Gift(room.index, gives)))
    return min(found, key=lambda each: each[:2])[2] if found else None


def shrinks(
    claim: Claim, rooms: Sequence[Room], holdings: Sequence[Holding], *, generous: bool = False
) -> tuple[NewSize, ...] | None:
    """The pools that are to be smaller for the claim; none where it fits as it is, None as for a gift."""
    made = gift(claim, rooms, holdings, generous=generous)
    if made is None:
        return None
    return given(made.mb, [each for each in holdings if each.device == made.device])


def given(mb: int, holdings: Sequence[Holding]) -> tuple[NewSize, ...]:
    """`mb` MiB of what these have to spare, of the one that has most first."""
    sizes = []
    for holding in sorted(holdings, key=lambda each: each.spare_mb, reverse=True):
        gives = min(mb, holding.spare_mb)
        if gives > 0:
            sizes.append(NewSize(holding.model, holding.smaller_by(gives)))
            mb -= gives
    return tuple(sizes)


def growths(rooms: Sequence[Room], holdings: Sequence[Holding]) -> tuple[NewSize, ...]:
    """The pools that get back what they gave, as far as their devices have it: who lacks most first."""
    left = {room.index: room.free_mb - room.spare_mb for room in rooms}
    sizes = []
    for holding in sorted(holdings, key=lambda each: each.missing_tokens, reverse=True):
        free_mb = left.get(holding.device, 0)
        if not holding.missing_tokens or free_mb <= 0:
            continue
        tokens = holding.larger_by(free_mb)
        if tokens > holding.tokens:
            sizes.append(NewSize(holding.model, tokens))
            taken = (tokens - holding.tokens) * holding.bytes_per_token
            left[holding.device] -= -(-taken // 2**20)
    return tuple(sizes)
