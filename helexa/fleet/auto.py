"""What `quant = "auto"` comes to: what fits, then what is fastest of what loses no more than is promised."""

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from helexa.engine.orders import Quant
from helexa.fleet.quant import Choice, Packable, stated, why_not

ALIKE = 1.05  # times that differ by less are the same

# By the bits that most of the files' weights have: the forms that keep them to within the stated bound.
# The earlier is taken of those that are as fast, or where nothing was measured.  4 bits of a file are kept
# as they are, more are rounded once in int8; int4 of such files loses more, so it is only there to fit.
KEEPING: Mapping[int, Sequence[Quant]] = {
    4: ("int4", "int4+bf16", "none"),
    8: ("int8", "none"),
    16: ("none", "int8"),
    32: ("none", "int8"),
}
TO_FIT: Sequence[Quant] = ("fp8", "int8", "int4")  # from the one that loses least

Speeds = Mapping[Quant, float]  # seconds of a usual request, as measured


@frozen
class Choices:
    """What "auto" may take on one device; `fitting` are of those that keep what the files have.

    If none of them fits there is `smaller`, the one that does, or the smallest of all.
    """

    fitting: tuple[Quant, ...]
    smaller: Quant
    room_mb: int
    needed_mb: Mapping[Quant, int]

    @property
    def must_measure(self) -> bool:
        return len(self.fitting) > 1

    def pick(self, speeds: Speeds) -> Choice:
        """The fastest, if they were measured; what could not be run was not."""
        measured = {quant: speeds[quant] for quant in self.fitting if quant in speeds}
        if not self.fitting:
            fits = self.needed_mb[self.smaller] < self.room_mb
            why = "the best that fits" if fits else "the smallest; nothing fits"
            return Choice(self.smaller, f"{why} into {self.room_mb} MB")
        if not self.must_measure:
            return Choice(self.fitting[0], f"what alone fits into {self.room_mb} MB without loss")
        if not measured:
            return Choice(self.fitting[0], "usual for such files; not measured yet")
        best = min(measured.values())
        first = next(quant for quant, seconds in measured.items() if seconds <= best * ALIKE)
        return Choice(first, told(measured))


def choices(
    packable: Packable,
    compute_capability: str | None,
    room_mb: int,
    needed_mb: Callable[[Quant], int],
    *,
    compiles: bool = False,
) -> Choices:
    """`room_mb` is what a device has, `needed_mb` what a form takes of it with the shortest context.

    Packed layers that are computed by our own kernels (`compiles`) need no plain form beside them.
    """
    keeping = keeping_of(packable.bits, compute_capability)
    if compiles:
        keeping = [quant for quant in keeping if quant != "int4+bf16"]
    able = [quant for quant in (*keeping, *TO_FIT) if not why_not(quant, compute_capability)]
    needed = {quant: needed_mb(quant) for quant in able}
    smaller = [quant for quant in TO_FIT if quant in needed] or ["none"]
    return Choices(
        tuple(quant for quant in keeping if quant in needed and needed[quant] < room_mb),
        next((quant for quant in smaller if needed[quant] < room_mb), smaller[-1]),
        room_mb,
        needed,
    )


def keeping_of(bits: int, compute_capability: str | None) -> Sequence[Quant]:
    """On a card the plain form comes first: nobody has measured one."""
    forms = next(forms for most, forms in KEEPING.items() if bits <= most)
    if compute_capability is None:
        return forms
    return sorted(forms, key=lambda quant: quant != "none")


def choose(wanted: str, found: Choices, speeds: Speeds) -> Choice:
    """The policy for what a catalogue entry says; one that is stated is taken at its word.

    Whether that can run and fits, the load will tell.
    """
    return found.pick(speeds) if wanted.lower() == "auto" else stated(wanted)


def told(measured: Speeds) -> str:
    """The times to two digits, the shortest first."""
    each = sorted((float(f"{seconds:.2g}"), quant) for quant, seconds in measured.items())
    return "measured: " + ", ".join(f"{quant} {seconds:g} s" for seconds, quant in each)
