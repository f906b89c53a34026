"""Clients that spend a key's budget at a real process: what they asked, what each received, and what the
ledger says of it."""

import http.client
import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen
from process import Helexa

MODEL = "said"
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SLOW_WORDS, SLOW_RATE = (
    60,
    40,
)  # of the answer to "slowly", a word being a token, and words a second
RULES = f"""
[[rules]]
when = "slowly"
say = "{" ".join(NUMBERS * (SLOW_WORDS // 10))}"
tokens_per_second = {SLOW_RATE}

[[rules]]
when = "much"
say = "{" ".join(NUMBERS * 30)}"

[[rules]]
say = "Hello there, friend."
"""
CATALOGUE = f"""
[[models]]
id = "{MODEL}"
harness = "script"
script = "rules.toml"
vram_mb = 100
cost = {{ input = 1.0, output = 2.0 }}
"""
PATIENCE_SECONDS = 120.0
HUNG_UP = (OSError, http.client.HTTPException, ValueError)  # the server went away in the middle


def model_options(folder: Path) -> dict[str, str]:
    """What a process needs to serve one script model; its files are written into `folder`."""
    (folder / "models.toml").write_text(CATALOGUE)
    (folder / "rules.toml").write_text(RULES)
    return {
        "HELEXA_MODELS__CATALOGUE": str(folder / "models.toml"),
        "HELEXA_MODELS__PRELOAD": f'["{MODEL}"]',
        "HELEXA_ADMISSION__MAX_QUEUE_DEPTH": "1000",
        "CUDA_VISIBLE_DEVICES": "",
    }


def make_key(process: Helexa, name: str, cap: int) -> str:
    """The secret of a new key with a balance of `cap` tokens."""
    (made,) = process.control("keys-create", account=name, hard_cap=cap)
    return str(made["secret"])


@frozen
class Question:
    """`leaves_after` so many words its client goes away; None if it stays."""

    text: str = "hello"
    max_tokens: int = 20
    num_answers: int = 1
    stream: bool = False
    leaves_after: int | None = None

    @property
    def body(self) -> bytes:
        said = [{"role": "user", "content": self.text}]
        asked = {"max_tokens": self.max_tokens, "n": self.num_answers, "stream": self.stream}
        return json.dumps({"model": MODEL, "messages": said, **asked}).encode()


@define
class Received:
    """What one client got.  `words` is when each word of a stream came, on the monotonic clock.

    `code` is that of the error it was told, be it within a stream that was open already; `usage` is
    prompt and completion tokens as the answer tells them at its end.
    """

    question: Question
    status: int = 0
    code: str = ""
    request_id: str = ""
    words: list[float] = field(factory=list)
    usage: tuple[int, int] | None = None

    def take(self, chunk: Mapping[str, Any]) -> None:
        if "error" in chunk:
            self.code = chunk["error"]["code"]
            return
        now = time.monotonic()
        for choice in chunk["choices"]:
            self.words += [now] * len((choice["delta"].get("content") or "").split())
        self.tell_usage(chunk)

    def tell_usage(self, answer: Mapping[str, Any]) -> None:
        if usage := answer.get("usage"):
            self.usage = usage["prompt_tokens"], usage["completion_tokens"]

    @property
    def has_left(self) -> bool:
        after = self.question.leaves_after
        return after is not None and len(self.words) >= after


def ask(process: Helexa, secret: str, question: Question) -> Received:
    """One request on a connection of its own; what came of it until it ended, or the server did."""
    received = Received(question)
    receive(process, secret, received)
    return received


def receive(process: Helexa, secret: str, received: Received) -> None:
    """As `ask`, for who wants to look on."""
    url = urlsplit(process.url())
    connection = http.client.HTTPConnection(url.netloc, timeout=PATIENCE_SECONDS)
    with closing(connection), suppress(*HUNG_UP):
        headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
        connection.request("POST", "/v1/chat/completions", received.question.body, headers)
        response = connection.getresponse()
        received.request_id = response.headers.get("x-request-id", "")
        received.status = response.status
        with response:
            read_answer(response, received)


def read_answer(response: http.client.HTTPResponse, received: Received) -> None:
    if received.status != 200:
        received.code = json.loads(response.read())["error"]["code"]
    elif not received.question.stream:
        received.tell_usage(json.loads(response.read()))
    else:
        for line in response:
            if line.startswith(b"data: {"):
                received.take(json.loads(line[6:]))
            if received.has_left:
                return


# -- what the ledger says ------------------------------------------------------------------------------


@frozen
class Row:
    outcome: str
    prompt: int
    completion: int
    reserved: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


def rows_of(process: Helexa, account: str) -> dict[str, Row]:
    """The requests of an account by their ids, as the file has them."""
    process.control("spend")  # what is under way is written before it answers
    file = f"file:{process.state_dir / 'ledger.sqlite'}?mode=ro"
    with closing(sqlite3.connect(file, uri=True)) as database:
        found = database.execute(
            "SELECT request_id, outcome, prompt_tokens, completion_tokens, reserved_tokens "
            "FROM requests WHERE account_id = ?",
            (account,),
        ).fetchall()
    rows = {request_id: Row(*rest) for request_id, *rest in found}
    assert len(rows) == len(found), "two rows for one request"
    return rows


def spent(process: Helexa, account: str) -> int:
    """Tokens, as `helexa-ctl spend` tells them."""
    told = process.control("spend", by="account")
    return next((int(row["tokens"]) for row in told if row["account"] == account), 0)
