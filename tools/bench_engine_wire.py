"""What the bench of the engine and its sides say to each other: JSON lines over stdin and stdout.

A side is a process of its own, so that its peak memory is its own.  The standard library is all that
this file needs: the peer's environment has nothing of ours.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

TRIAL_PROMPTS = 1024  # tokens of all prompts of a shortened request together
TRIAL_TOKENS = 12


@dataclass(frozen=True)
class Setup:
    """`path` is the prepared model, `gguf` the file it was made from; 0 KV tokens is the default."""

    path: str
    gguf: str
    device: str
    dtype: str
    threads: int
    quant: str = "none"
    batch_width: int = 1
    prefill_chunk_tokens: int = 256
    kv_tokens: int = 0
    drafts: bool = False  # no other side has them


@dataclass(frozen=True)
class Stream:
    """One greedy generation of exactly `max_tokens`, whatever the model would end with.

    It begins at once, or when stream `after` has given `after_tokens`, unless stream `before` has
    ended by then.  One that `continues` has the prompt and the answer of `after` before its own
    prompt.  A stream in the `background` is left when all others have ended.  Streams of one `salt`
    may share what they begin with.
    """

    prompt: list[int]
    max_tokens: int
    salt: str = ""
    after: int | None = None
    after_tokens: int = 1
    before: int | None = None
    continues: bool = False
    background: bool = False


@dataclass(frozen=True)
class Request:
    """`warm_up`: the answer is not looked at; a side computes a shortened form, to try what suits it best."""

    streams: list[Stream]
    warm_up: bool = False


@dataclass
class Timing:
    """Seconds since the request: when a stream began, None if it never did, and each of its tokens."""

    began: float | None = None
    times: list[float] = field(default_factory=list)
    cached_tokens: int = 0


@dataclass(frozen=True)
class Answer:
    """`steps_to_stop`: the steps taken after the last streams were left until nothing ran any more."""

    streams: list[Timing]
    steps_to_stop: int = 0


def shortened(request: Request) -> Request:
    """A small form of what begins at once: of each prompt the end, where it differs from what it shares."""
    at_once = [stream for stream in request.streams if stream.after is None]
    length = TRIAL_PROMPTS // len(at_once)
    streams = [
        Stream(stream.prompt[-length:], min(stream.max_tokens, TRIAL_TOKENS), stream.salt)
        for stream in at_once
    ]
    return Request(streams, request.warm_up)


Work = Callable[[Request], Answer]
Open = Callable[[Setup], tuple[str, Work]]


def serve(open_side: Open) -> None:
    """Be a side: read a Setup, tell about yourself, then answer requests until the input ends."""
    speak = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the lines

    def say(line: dict[str, Any]) -> None:
        speak.write(json.dumps(line) + "\n")

    try:
        about, work = open_side(Setup(**json.loads(sys.stdin.readline())))
        say({"about": about})
        for line in sys.stdin:
            say(asdict(work(read_request(json.loads(line)))))
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from error


def read_request(line: dict[str, Any]) -> Request:
    return Request([Stream(**each) for each in line["streams"]], line["warm_up"])


def read_answer(line: dict[str, Any]) -> Answer:
    return Answer([Timing(**each) for each in line["streams"]], line["steps_to_stop"])
