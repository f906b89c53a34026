"""One HTTP request as the door hands it to a route: who asks, under which id, what to do at its end."""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

from attrs import define, field

from helexa.accounts.keys import ANONYMOUS_KEY, Key
from helexa.conversation import Principal
from helexa.errors import HelexaError
from helexa.http.body import Body
from helexa.wire.envelope import Shape

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

PLAIN_ID = re.compile(r"[-A-Za-z0-9._:]{1,128}")
BASE62 = bytes.maketrans(b"-_", b"aZ")


@define(eq=False)
class Call:
    """What a route may know and do beside the request itself; `call_of(request)` finds it.

    `headers` are the request's, their names in lower case; of several alike the first.
    `key` is what the request may do, and as whom: its weight, priority and models.
    `shape` is that of the errors which this client understands.  `exits` runs when the request has
    ended, however it ended: what a route takes for a request, it gives back there
    (`exits.callback`), and not in a response that may never start.  `refusal` is the expected error
    that the client is told, if any; it is logged at the end unless the route sets `recorded`, because
    it keeps a record of its own.
    """

    request_id: str
    client_request_id: str | None
    body: Body
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    shape: Shape = "openai"
    key: Key = ANONYMOUS_KEY
    authenticated: bool = False
    refusal: HelexaError | None = None
    recorded: bool = False
    exits: AsyncExitStack = field(factory=AsyncExitStack)

    @property
    def principal(self) -> Principal:
        return self.key.principal


def call_of(request: Any) -> Call:
    """The call of a Quart request."""
    call: Call = request.scope["state"]["call"]
    return call


async def take_body(request: Any) -> bytes:
    """The whole body of a Quart request, as `Body.take`."""
    return await call_of(request).body.take()


def new_request_id() -> str:
    """`req_` and 24 random letters and digits."""
    return "req_" + secrets.token_urlsafe(18).encode().translate(BASE62).decode()


def plain_id(text: str | None) -> str | None:
    """A client's own request id if it is harmless to log, else None."""
    return text if text and PLAIN_ID.fullmatch(text) else None
