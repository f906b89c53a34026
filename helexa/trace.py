"""One request's clock and decision log, written by the request's own task as it goes."""

import time

import trio
from attrs import define, field

from helexa.conversation import ANONYMOUS, Principal, Usage
from helexa.errors import HelexaError
from helexa.fleet.share import Share


def _now() -> float:
    return trio.current_time()


@define(eq=False)
class Trace:
    """Where the time of a request went and why, for its record, its metrics and its log lines.

    Seconds are on Trio's clock; `wall_time` is when the request came, as Unix time.  A mark is None
    until the request got that far.
    """

    request_id: str
    dialect: str
    principal: Principal = ANONYMOUS
    client_request_id: str | None = None
    model: str = "unknown"  # a catalogue id, never what the client sent
    node: str = ""
    stream: bool = False
    opened: bool = False  # whether anything of a stream was written
    wall_time: float = field(factory=time.time)
    started_at: float = field(factory=_now)
    load_seconds: float = 0.0
    queue_seconds: float = 0.0
    admitted_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float = 0.0
    longest_gap: float = 0.0  # between two tokens, of any of its answers
    ended_at: float | None = None
    finish: str | None = None
    error: HelexaError | None = None
    usage: Usage | None = None
    decisions: list[tuple[float, str]] = field(factory=list)
    share: Share = Share()  # what its key gets of a busy model

    def note(self, decision: str) -> None:
        """Add to the decision log, with the seconds since the request came."""
        self.decisions.append((round(_now() - self.started_at, 4), decision))

    def end(self, finish: str) -> None:
        """How it ended; the first word counts."""
        if self.ended_at is None:
            self.ended_at = _now()
            self.finish = self.finish or finish

    def fail(self, error: Exception) -> None:
        """It ended by an error; an unexpected one is told as the client is told of it."""
        if self.ended_at is None:
            self.error = error if isinstance(error, HelexaError) else HelexaError("internal error")
            self.finish = None
            self.end("error")

    @property
    def outcome(self) -> str:
        """One word of a bounded set: how it finished, or the code of its error."""
        if self.error is not None:
            return self.error.code or str(self.error.status)
        return self.finish or "unknown"

    @property
    def seconds(self) -> float:
        return (self.ended_at or _now()) - self.started_at

    @property
    def first_token_seconds(self) -> float | None:
        return None if self.first_token_at is None else self.first_token_at - self.started_at

    @property
    def prefill_seconds(self) -> float | None:
        """From admission to the first token."""
        if self.first_token_at is None or self.admitted_at is None:
            return None
        return self.first_token_at - self.admitted_at

    @property
    def decode_seconds(self) -> float | None:
        """From the first token to the end."""
        if self.first_token_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.first_token_at

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens after the first, per second."""
        tokens = self.usage.completion_tokens if self.usage else 0
        seconds = self.decode_seconds
        return (tokens - 1) / seconds if seconds and tokens > 1 else None
