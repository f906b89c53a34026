"""How work in the store tells how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Called with a phase and how much of it is done, both in bytes; a total of 0 is unknown.

    The phases, in order: `wait` (another process adds the same model), `download`, `verify`,
    `prepare` (without bytes).  It is called often; whoever shows it chooses how often to show it.
    """

    def __call__(self, phase: str, done_bytes: int, total_bytes: int, /) -> None: ...


def silent(phase: str, done_bytes: int, total_bytes: int, /) -> None:
    """Tell nobody."""
