"""How the weights of a model are kept on a device: which of the five policies, and what each takes."""

from attrs import evolve, frozen

from helexa.engine.orders import Quant

POLICIES: tuple[Quant, ...] = ("none", "int4+bf16", "fp8", "int8", "int4")  # from large to small

PLANE_BYTES = 0.5 + 4 / 32  # of a weight: 4 bits, and a scale and a zero for every 32
INT4_CAPABILITY = 8.0
FLOAT8_CAPABILITY = 8.9

# What "auto" tries, in this order.  On a CPU what measures faster comes first: 4 bits for up to 8 rows,
# the plain form for more.  On cards nobody has measured: there what loses least comes first.
ON_CPU: tuple[Quant, ...] = ("int4+bf16", "int4")
ON_CUDA: tuple[Quant, ...] = ("none", "fp8", "int8", "int4")

# What a quantisation's name begins with, as GGUF files and others have them -> our nearest policy.
NEAREST: dict[str, Quant] = {
    **dict.fromkeys(("IQ", "TQ", "Q1", "Q2", "Q3", "Q4", "MXFP4", "NVFP4", "INT4"), "int4"),
    **dict.fromkeys(("AWQ", "GPTQ", "NF4"), "int4"),
    **dict.fromkeys(("Q5", "Q6", "Q8", "INT8"), "int8"),
    **dict.fromkeys(("FP8", "F8"), "fp8"),
    **dict.fromkeys(("F16", "BF16", "FP16", "F32", "FP32"), "none"),
}


@frozen
class Packable:
    """How many parameters are in layers that can be packed.

    `head` are those of the layer that makes the logits, which keeps 8 bits; if it is `tied`, they are the
    embedding's too, which stays plain.  `experts` are those of mixtures, which fp8 leaves plain.
    """

    layers: int = 0
    head: int = 0
    tied: bool = False
    experts: int = 0

    @property
    def all(self) -> int:
        return self.layers + self.head + self.experts


@frozen
class Choice:
    """`reason` is for people: why it is not what was asked for; "" where it is."""

    quant: Quant
    reason: str = ""


def weights_bytes(parameters: int, packable: Packable, quant: Quant, dtype_bytes: int) -> int:
    """What `parameters` take on a device whose plain form is `dtype_bytes` wide."""
    if quant == "fp8":
        packable = evolve(packable, experts=0)
    moved = packable.all - (packable.head if packable.tied else 0)
    plain = (parameters - moved) * dtype_bytes
    in_4_bit = (packable.layers + packable.experts) * PLANE_BYTES + packable.head * 2 * PLANE_BYTES
    match quant:
        case "none":
            packed: float = moved * dtype_bytes
        case "int4":
            packed = in_4_bit
        case "int4+bf16":
            packed = in_4_bit + moved * dtype_bytes
        case "int8":
            packed = packable.all * 2 * PLANE_BYTES
        case "fp8":
            packed = packable.all
    return int(plain + packed)


def why_not(quant: Quant, compute_capability: str | None) -> str:
    """Why a device cannot do it, in a clause; "" if it can.  A CPU has no compute capability."""
    if compute_capability is None:
        return "fp8 needs a CUDA card, and this is a CPU" if quant == "fp8" else ""
    needed = {"none": 0.0, "fp8": FLOAT8_CAPABILITY}.get(quant, INT4_CAPABILITY)
    if float(compute_capability) >= needed:
        return ""
    return f"{quant} needs compute capability {needed}, and this card has {compute_capability}"


def choose(
    wanted: str,
    parameters: int,
    packable: Packable,
    dtype_bytes: int,
    compute_capability: str | None,
    room_mb: int,
) -> Choice:
    """The policy for what a catalogue entry says: "" is "none".

    `room_mb` is what a device has for weights and the shortest context; for "auto" the first that fits,
    else the smallest.  A policy that is stated is taken at its word: whether it can run and fits, the
    load will tell.
    """
    if wanted.lower() != "auto":
        return stated(wanted)
    order = ON_CPU if compute_capability is None else ON_CUDA
    able = [quant for quant in order if not why_not(quant, compute_capability)]
    for quant in able:
        needed = weights_bytes(parameters, packable, quant, dtype_bytes) >> 20
        if needed < room_mb:
            return Choice(quant, f"the first of {', '.join(able)} that fits into {room_mb} MB")
    return Choice(able[-1], f"the smallest; nothing fits into {room_mb} MB")


def stated(wanted: str) -> Choice:
    """A policy by its own name, or the nearest one for the name of another quantisation."""
    name = wanted.lower()
    if name in POLICIES or not name:
        return next((Choice(quant) for quant in POLICIES if quant == name), Choice("none"))
    found = nearest(wanted)
    if found is None:
        return Choice("none", f"{wanted} is no quantisation that is known here")
    return Choice(found, f"the nearest to {wanted}")


def nearest(wanted: str) -> Quant | None:
    """Our policy for the name of another quantisation; None for one that is not known."""
    words = (word for word in NEAREST if wanted.upper().startswith(word))
    return next((NEAREST[word] for word in words), None)


def is_known(wanted: str) -> bool:
    """Whether a quantisation of this name can be asked for."""
    return wanted.lower() in ("", "auto", *POLICIES) or nearest(wanted) is not None


def is_same(one: str, other: str) -> bool:
    """Whether two names come to the same policy; "auto" is itself alone, as a device decides."""
    if "auto" in (one.lower(), other.lower()):
        return one.lower() == other.lower()
    return stated(one).quant == stated(other).quant
