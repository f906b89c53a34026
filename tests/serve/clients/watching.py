"""What a server did while a client talked to it: requests ended, bodies received, nothing left open."""

import http.client
import json
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field
from process import Helexa

from helexa.conversation import Conversation, Json
from helexa.wire import anthropic, openai_chat, openai_responses

NOTHING_OPEN = {"sequences": 0, "slots": 0, "reservations": 0}
WAIT_SECONDS = 60.0


@define(eq=False)
class Watch:
    """What happened on `server` since this was made."""

    server: Helexa
    _path: Path = field(init=False)  # where it keeps what it was asked
    _seen: int = field(init=False)
    _ended: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        (told,) = self.server.control("capture", key="anonymous")
        self._path = Path(told["message"].split(" written to ")[1].split(" until ")[0])
        self._seen = len(self._path.read_text().splitlines())
        self._ended = len(self.server.events("request ended"))

    @property
    def ended(self) -> list[dict[str, Any]]:
        return self.server.events("request ended")[self._ended :]

    @property
    def outcomes(self) -> list[str]:
        """So far."""
        return [line["outcome"] for line in self.ended]

    @property
    def bodies(self) -> list[Json]:
        """The requests, in order of arrival."""
        return [json.loads(entry["body"]) for entry in self._requests]

    @property
    def steps(self) -> list[str]:
        """Outcomes of the requests that offered tools, in order of arrival.

        Not those that ask for a title, say: an agent sends them whenever it likes.
        """
        outcomes = {line["request_id"]: line["outcome"] for line in self.ended}
        asked = [each for each in self._requests if json.loads(each["body"]).get("tools")]
        return [outcomes[entry["request_id"]] for entry in asked]

    @property
    def _requests(self) -> list[Json]:
        entries = map(json.loads, self._path.read_text().splitlines()[self._seen :])
        return [entry for entry in entries if entry["kind"] == "request"]

    def settled(self) -> list[str]:
        """All outcomes, once every request has ended and the server holds nothing any more.

        A client may be gone a moment before its last request is told of.
        """
        wait_until(lambda: len(self.bodies) <= len(self.ended))
        wait_until(lambda: self.server.status["open"] == NOTHING_OPEN)
        return self.outcomes


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for other processes, which no clock of ours can hurry."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)


def conversation(body: Json) -> Conversation:
    """A request of any of the three dialects that agents speak."""
    if "input" in body:
        return openai_responses.read_request(body).conversation
    if "metadata" in body:
        return anthropic.read_request(body).conversation
    return openai_chat.read_request(body).conversation


@contextmanager
def stream_held_open(server: Helexa) -> Iterator[Callable[[], None]]:
    """Somebody else's stream, which keeps its place; the value is what ends it."""
    messages = [{"role": "user", "content": "ENDLESS"}]
    body = {"model": "scripted", "stream": True, "messages": messages}
    connection = http.client.HTTPConnection(urlsplit(server.url()).netloc, timeout=WAIT_SECONDS)
    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        with connection.getresponse() as response:
            assert response.status == 200
            assert response.readline()
            yield connection.close
    finally:
        connection.close()
