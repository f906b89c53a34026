"""A burst: two hundred requests at once on one key at its cap.

Never a token too many, and afterwards none refused that fits.
"""

import random
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from attrs import define, field
from process import Helexa
from spenders import Question, Received, Row, ask, make_key, rows_of, spent

NUM_REQUESTS = 200
SMALLEST_CAP, LARGEST_CAP = 500, 8000
FULL = {"rate_limit_exceeded", "insufficient_quota"}  # the codes of a budget without room


@define
class Burst:
    """How one went; `most_taken` is what was ever seen spent and reserved together."""

    cap: int
    answered: int = 0
    left: int = 0
    refused: int = 0
    spent: int = 0
    most_taken: int = 0
    problems: list[str] = field(factory=list)

    def check(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.problems.append(otherwise)


def burst(process: Helexa, number: int) -> Burst:
    """The burst of that number, which is also its seed, on a key of its own."""
    chance, account = random.Random(number), f"burst-{number}"
    done = Burst(cap=chance.randint(SMALLEST_CAP, LARGEST_CAP))
    secret = make_key(process, account, done.cap)
    questions = [question(chance) for _ in range(NUM_REQUESTS)]
    with watched(process, account, done), ThreadPoolExecutor(NUM_REQUESTS) as pool:
        answers = list(pool.map(lambda one: ask(process, secret, one), questions))
    process.wait_for_rest()
    count(done, answers, rows_of(process, account))
    use_up(process, account, secret, done)
    return done


def question(chance: random.Random) -> Question:
    """Short and long, whole and streamed, for one answer or three; some leave in the middle."""
    stream = chance.random() < 0.5
    return Question(
        chance.choice(("hello", "much")),
        chance.randint(1, 60),
        chance.choice((1, 1, 3)),
        stream,
        chance.randint(1, 5) if stream and chance.random() < 0.3 else None,
    )


def count(done: Burst, answers: list[Received], rows: dict[str, Row]) -> None:
    """Each client was charged what it was told, and nobody for what was refused."""
    outcomes = Counter(answer.status for answer in answers)
    done.check(set(outcomes) <= {200, 429}, f"answers had the statuses {dict(outcomes)}")
    for answer in answers:
        row = rows.get(answer.request_id)
        if answer.code:
            done.refused += 1
            done.check(answer.code in FULL, f"refused as {answer.code}")
            done.check(row is None or not row.tokens, "a refused request was charged")
        elif row is None:
            done.problems.append("an answer is not in the ledger")
        elif answer.usage is not None:
            done.answered += 1
            told, charged = answer.usage, (row.prompt, row.completion)
            done.check(told == charged, f"told {told}, charged {charged}")
        else:
            done.left += 1
            done.check(answer.has_left, "an answer was cut off")
            done.check(
                row.prompt > 0 and len(answer.words) <= row.completion <= row.reserved - row.prompt,
                f"left after {len(answer.words)} words, charged {row}",
            )
    done.spent = sum(row.tokens for row in rows.values())


def use_up(process: Helexa, account: str, secret: str, done: Burst) -> None:
    """What is left is granted to the last token, and one more is not."""
    told = spent(process, account)
    done.check(told == done.spent, f"rows have {done.spent} tokens, the sum {told}")
    prompt = prompt_tokens(process)
    while (left := done.cap - spent(process, account)) > prompt:
        answer = ask(process, secret, Question("much", left - prompt))
        if answer.code:
            return done.problems.append(f"refused although {left} tokens were free")
    done.check(0 <= left <= prompt, f"{-left} tokens over the cap")
    refused = ask(process, secret, Question("much", 1))
    done.check(refused.code == "insufficient_quota", f"over the cap: {refused.status}")


def prompt_tokens(process: Helexa) -> int:
    """Of the question that `use_up` asks, as somebody without a bound is told."""
    usage = ask(process, "", Question("much", 1)).usage
    assert usage is not None
    return usage[0]


# -- meanwhile -----------------------------------------------------------------------------------------


@contextmanager
def watched(process: Helexa, account: str, done: Burst) -> Iterator[None]:
    """Look again and again at what is spent and reserved of the account's budget."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            done.most_taken = max(done.most_taken, taken(process, account))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
    done.check(done.most_taken <= done.cap, f"{done.most_taken} tokens were taken at once")


def taken(process: Helexa, account: str) -> int:
    """Spent and reserved tokens of the account's only key, at one moment."""
    names = ("helexa_budget_spent_tokens{", "helexa_budget_reserved_tokens{")
    with urllib.request.urlopen(process.url("metrics") + "/metrics") as scraped:
        lines = scraped.read().decode().splitlines()
    mine = [one for one in lines if one.startswith(names) and f'account="{account}"' in one]
    return sum(int(float(line.split()[-1])) for line in mine)
