"""How far the models are that come up by themselves: those of a start, and those that are pinned."""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from helexa.fleet.view import Activation


@frozen
class ActivationView:
    """`pending` models are to come, `failed` ones did not come up when they were tried last, and why."""

    state: Activation = "starting"
    loading: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(factory=dict)

    def __add__(self, other: "ActivationView") -> "ActivationView":
        """Both as one, such as those of a gateway and of its own node."""
        loading = union(self.loading, other.loading)
        return ActivationView(
            together((self.state, other.state)),
            loading,
            tuple(name for name in union(self.pending, other.pending) if name not in loading),
            {**self.failed, **other.failed},
        )

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "state": self.state,
            "loading": list(self.loading),
            "pending": list(self.pending),
            "failed": list(self.failed),
            "why": dict(self.failed),
        }


def union(some: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    """In their order, each once."""
    return tuple(dict.fromkeys((*some, *more)))


def together(states: Iterable[Activation]) -> Activation:
    """Ready when all are; loading as soon as any of them loads."""
    found = set(states)
    return "loading" if "loading" in found else "starting" if "starting" in found else "ready"
