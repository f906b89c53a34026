"""What the readers of other servers' answers have alike, whatever their dialect."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

import orjson
from attrs import define, field

from helexa.conversation import Delta, Event, Json, Phase, Started, Usage
from helexa.errors import InvalidRequest, UpstreamError, UpstreamMalformed
from helexa.wire.fields import Fields

MOST = 2**53  # of a list or a number: another server is believed
PHASES: Mapping[str, Phase] = {phase: phase for phase in get_args(Phase)}
ERROR_FIELDS = frozenset({"message", "type", "code", "param", "request_id"})
STARTED = re.compile(r"started ([0-9]{1,15}) cached ([0-9]{1,15})")


def malformed(what: str) -> UpstreamMalformed:
    return UpstreamMalformed(f"The upstream's answer cannot be read: {what}.")


@contextmanager
def reading() -> Iterator[None]:
    """A wrong type in what another server sent is its mistake, not that of a client's request."""
    try:
        yield
    except InvalidRequest as error:
        raise malformed(error.message.rstrip(".")) from None


def read_json(data: bytes) -> Fields:
    """The object in `data`; if it is an error, that error is raised."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise malformed("it is not JSON") from None
    if not isinstance(value, dict):
        raise malformed("it is not a JSON object")
    if value.get("error") is not None:
        raise read_error(value["error"])
    return Fields(value)


def read_error(error: Json) -> UpstreamError:
    if not isinstance(error, dict):
        return UpstreamError(f"The upstream failed: {error}")
    found = UpstreamError(str(error.get("message")), param=as_text(error.get("param")))
    found.type = as_text(error.get("type")) or found.type
    found.code = as_text(error.get("code")) or found.code
    found.details = {key: value for key, value in error.items() if is_diagnostic(key, value)}
    return found


def is_diagnostic(key: str, value: Json) -> bool:
    return key not in ERROR_FIELDS and isinstance(value, str | int | float)


def as_text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def read_started(comment: str) -> Started | None:
    """What a helexa says in a comment when its model begins."""
    found = STARTED.fullmatch(comment)
    return Started(int(found[1]), int(found[2])) if found else None


def read_usage(parent: Fields, taken: str, given: str) -> Usage | None:
    """`taken` and `given` are the dialect's words: prompt and completion, or input and output."""
    usage = parent.object("usage")
    if usage is None:
        return None
    of_taken = usage.object(f"{taken}_tokens_details") or Fields({})
    of_given = usage.object(f"{given}_tokens_details") or Fields({})
    return Usage(
        prompt_tokens=usage.integer(f"{taken}_tokens", 0, MOST) or 0,
        completion_tokens=usage.integer(f"{given}_tokens", 0, MOST) or 0,
        cached_tokens=of_taken.integer("cached_tokens", 0, MOST) or 0,
        reasoning_tokens=of_given.integer("reasoning_tokens", 0, MOST) or 0,
    )


@define(eq=False)
class Tally:
    """What was told of a stream so far: that it started, once, and how many deltas came."""

    _started: Started | None = field(default=None, init=False)
    _num_deltas: int = field(default=0, init=False)

    def start(self, started: Started) -> Iterator[Event]:
        if self._started is None:
            self._started = started
            yield started

    def count(self, events: Iterable[Event]) -> None:
        self._num_deltas += sum(isinstance(event, Delta) for event in events)

    def estimate(self) -> Usage:
        """What is known where the upstream tells no usage: a delta of text is about a token."""
        prompt_tokens = self._started.prompt_tokens if self._started else 0
        return Usage(prompt_tokens, self._num_deltas)
