"""What every dialect gives to the HTTP routes: a request that knows how its answer is written."""

from typing import Protocol

from attrs import frozen

from helexa.conversation import Conversation, Event
from helexa.errors import HelexaError
from helexa.wire.answer import Answer
from helexa.wire.places import Places


@frozen
class Reply:
    """What names an answer: the id of its request, the model as the client named it, its time in
    seconds since 1970."""

    request_id: str
    model: str
    created: int

    def id(self, prefix: str) -> str:
        """An id of the dialect's own kind, such as `chatcmpl-...`."""
        return prefix + self.request_id.removeprefix("req_")


class Writer(Protocol):
    """One stream.  `write` gives the bytes of one event, which may be none.

    A Progress becomes the dialect's own sign of life.  `error` ends the stream in place of what is
    left; it may come first.
    """

    def write(self, event: Event) -> bytes: ...
    def error(self, error: HelexaError) -> bytes: ...


class Exchange(Protocol):
    """One request of a dialect and how it wants to be answered: whole, or as a stream.

    `passes` tells whether another server of the dialect would understand the request as it came: not
    where memory of this one is part of it.  `places` tell where in the request stands what its
    conversation may be refused for.
    """

    @property
    def conversation(self) -> Conversation: ...
    @property
    def stream(self) -> bool: ...
    @property
    def passes(self) -> bool: ...
    @property
    def places(self) -> Places: ...
    def whole(self, answer: Answer, reply: Reply) -> bytes: ...
    def writer(self, reply: Reply) -> Writer: ...
