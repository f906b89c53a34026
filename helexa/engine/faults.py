"""What goes wrong with one sequence of a model, while the others go on."""

from helexa.devices.faults import classify
from helexa.errors import HelexaError, InsufficientVram


def own_fault(error: Exception, device: str) -> HelexaError:
    """The error as one that ends a single sequence; raises it again if it is more than that."""
    if isinstance(error, HelexaError):
        return error
    if classify(error) == "out_of_memory":
        return out_of_memory(device)
    raise error


def out_of_memory(device: str) -> InsufficientVram:
    return InsufficientVram(
        f"the memory of device {device} is full: this request found no room in it", retry_after=5
    )


def full_pool(tokens: int, total: int) -> InsufficientVram:
    return InsufficientVram(
        f"the KV cache of this model holds {total} tokens; this request needs {tokens}",
        retry_after=30,
    )
