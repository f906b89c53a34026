"""A kill: `kill -9` at a random moment of eight streams.

The next life's ledger has what clients got, but for a second of it.
"""

import random
import threading
import time
from collections.abc import Sequence

from attrs import define, field
from process import Helexa, select_nothing
from spenders import SLOW_RATE, SLOW_WORDS, Question, Received, Row, receive, rows_of, spent

NUM_CLIENTS = 8
STORY_SECONDS = 2.0  # from the first word until the kill, at the most
BOUND_SECONDS = 1.0  # of each answer may be forgotten
ENDED = {"settled", "released", "crashed"}


@define
class Kill:
    """How one went.  Tokens of all streams; `most_lost` is what the ledger has less of one than its
    client got, `most_ahead` what it has more, which was on its way."""

    streams: int = 0
    ended: int = 0
    received: int = 0
    recorded: int = 0
    most_lost: int = 0
    most_ahead: int = 0
    problems: list[str] = field(factory=list)

    def check(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.problems.append(otherwise)


def kill(process: Helexa, account: str, secret: str, chance: random.Random) -> Kill:
    """Stream to clients until killed; then start again, and compare.  The process is up afterwards."""
    before = set(rows_of(process, account))
    answers, killed_at = stream_until_killed(process, secret, chance)
    process.restart()
    rows = {id: row for id, row in rows_of(process, account).items() if id not in before}
    done = Kill()
    known = {answer.request_id: answer for answer in answers if answer.request_id}
    for id, row in rows.items():
        compare(done, known.get(id), row, killed_at)
    for id, answer in known.items():
        done.check(not answer.words or id in rows, "the ledger knows nothing of an answer")
    told, total = spent(process, account), sum(r.tokens for r in rows_of(process, account).values())
    done.check(told == total, f"rows have {total} tokens, the sum {told}")
    done.check(not any(process.status["open"].values()), "something is still reserved")
    return done


def stream_until_killed(
    process: Helexa, secret: str, chance: random.Random
) -> tuple[Sequence[Received], float]:
    """What the clients got, one answer after the other, and when the process was killed."""
    is_over, answers = threading.Event(), list[Received]()

    def client() -> None:
        while not is_over.is_set():
            most = chance.randint(5, SLOW_WORDS)
            answer = Received(Question("slowly", most, stream=True))
            answers.append(answer)
            receive(process, secret, answer)

    clients = [threading.Thread(target=client) for _ in range(NUM_CLIENTS)]
    for one in clients:
        one.start()
    while not any(answer.words for answer in answers):
        select_nothing(0.01)
    select_nothing(chance.uniform(0.0, STORY_SECONDS))
    is_over.set()
    killed_at = time.monotonic()
    process.kill()
    for one in clients:
        one.join()
    return answers, killed_at


def compare(done: Kill, answer: Received | None, row: Row, killed_at: float) -> None:
    """`answer` is None for a request whose client did not even get its head."""
    words = answer.words if answer else []
    certain = sum(at < killed_at - BOUND_SECONDS for at in words)
    done.streams += 1
    done.ended += answer is not None and answer.usage is not None
    done.received += len(words)
    done.recorded += row.completion
    done.most_lost = max(done.most_lost, len(words) - row.completion)
    done.most_ahead = max(done.most_ahead, row.completion - len(words))
    done.check(row.outcome in ENDED, f"a request is {row.outcome}")
    done.check(row.completion >= certain, f"{certain} tokens are older than a second, {row}")
    most = len(words) + SLOW_RATE * BOUND_SECONDS
    done.check(row.completion <= most, f"{len(words)} tokens were received, {row}")
    done.check(bool(row.prompt) or not row.completion, f"an answer without a prompt: {row}")
    if answer is not None and answer.usage is not None:
        done.check(row.completion <= answer.usage[1], f"told {answer.usage}, {row}")
