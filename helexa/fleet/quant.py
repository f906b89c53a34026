"""How the weights of a model are kept on a device: which of the five policies, and what each takes."""

from typing import TypeAlias

from attrs import evolve, frozen

from helexa.engine.orders import Quant

POLICIES: tuple[Quant, ...] = ("none", "int4+bf16", "fp8", "int8", "int4")  # from large to small

PLANE_BYTES = 0.5 + 4 / 32  # of a weight: 4 bits, and a scale and a zero for every 32
INT4_CAPABILITY = 8.0
FLOAT8_CAPABILITY = 8.9
HALF_BITS = 16  # float16 holds what files have in so many, or fewer

# What a quantisation's name begins with, as GGUF files and others have them -> our nearest policy.
NEAREST: dict[str, Quant] = {
    **dict.fromkeys(("IQ", "TQ", "Q1", "Q2", "Q3", "Q4", "MXFP4", "NVFP4", "INT4"), "int4"),
    **dict.fromkeys(("AWQ", "GPTQ", "NF4"), "int4"),
    **dict.fromkeys(("Q5", "Q6", "Q8", "INT8"), "int8"),
    **dict.fromkeys(("FP8", "F8"), "fp8"),
    **dict.fromkeys(("F16", "BF16", "FP16", "F32", "FP32"), "none"),
}


Shape: TypeAlias = tuple[int, int, int]  # rows and columns of a matrix, and how many of it


@frozen
class Packable:
    """How many parameters are in layers that can be packed.

    `head` are those of the layer that makes the logits, which keeps 8 bits; if it is `tied`, they are the
    embedding's too, which stays plain.  `experts` are those of mixtures, which fp8 leaves plain.  `down`
    of the layers' lead out of MLPs, `table` are the embedding's.  `shapes` are the layers', `bits` what most
    of their weights have in the files.
    """

    layers: int = 0
    head: int = 0
    tied: bool = False
    experts: int = 0
    down: int = 0
    table: int = 0
    bits: int = 16
    shapes: tuple[Shape, ...] = ()

    @property
    def all(self) -> int:
        return self.layers + self.head + self.experts

    @property
    def own_head(self) -> int:
        """The head's parameters, unless they are the embedding's."""
        return 0 if self.tied else self.head


@frozen
class Fused:
    """What a device does for models of the usual shape that are computed in float32.

    `halves`: weights that float16 holds are kept in it.  Packed layers are computed by our own kernels if
    their rows come in blocks of `block_rows`; 0 for never.
    """

    halves: bool = False
    block_rows: int = 0

    def compiles(self, packable: Packable) -> bool:
        rows = [rows for rows, _, _ in packable.shapes]
        return bool(self.block_rows and rows) and not any(n % self.block_rows for n in rows)


@frozen
class Choice:
    """`reason` is for people: why it is not what was asked for; "" where it is."""

    quant: Quant
    reason: str = ""


def weights_bytes(parameters: int, packable: Packable, quant: Quant, dtype_bytes: int) -> int:
    """What `parameters` take on a device whose plain form is `dtype_bytes` wide, as they are loaded."""
    if quant == "fp8":
        packable = evolve(packable, experts=0)
    moved = packable.all - (packable.head if packable.tied else 0)
    plain = (parameters - moved) * dtype_bytes
    match quant:
        case "none":
            packed: float = moved * dtype_bytes
        case "int4":
            packed = packed_bytes(packable, quant)
        case "int4+bf16":
            packed = packed_bytes(packable, quant) + moved * dtype_bytes
        case "int8":
            packed = packed_bytes(packable, quant)
        case "fp8":
            packed = packable.all
    return int(plain + packed)


def fused_bytes(parameters: int, packable: Packable, quant: Quant, fused: Fused) -> int:
    """What they take in float32 once a model of the usual shape was made of them."""
    compiles = quant != "none" and fused.compiles(packable)
    if quant == "fp8" or not (compiles or (fused.halves and packable.bits <= HALF_BITS)):
        return weights_bytes(parameters, packable, quant, 4)
    rest = 4 * (parameters - packable.layers - packable.table - packable.own_head)
    if compiles:
        return int(packed_bytes(packable, quant) + 2 * packable.table + rest)
    halved = 2 * packable.layers + 2 * packable.head
    if quant == "none":
        return halved + 2 * packable.down + 2 * packable.table + rest
    beside = halved if quant == "int4+bf16" else 0
    return int(packed_bytes(packable, quant) + beside + 4 * packable.table + rest)


def packed_bytes(packable: Packable, quant: Quant) -> float:
    """In 8 bits, or in 4 but for the head."""
    if quant == "int8":
        return packable.all * 2 * PLANE_BYTES
    return (packable.layers + packable.experts + 2 * packable.head) * PLANE_BYTES


def why_not(quant: Quant, compute_capability: str | None) -> str:
    """Why a device cannot do it, in a clause; "" if it can.  A CPU has no compute capability."""
    if compute_capability is None:
        return "fp8 needs a CUDA card, and this is a CPU" if quant == "fp8" else ""
    needed = {"none": 0.0, "fp8": FLOAT8_CAPABILITY}.get(quant, INT4_CAPABILITY)
    if float(compute_capability) >= needed:
        return ""
    return f"{quant} needs compute capability {needed}, and this card has {compute_capability}"


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
