"""A response that is kept, so that the client can go on from it or ask for it again."""

from typing import Protocol

import orjson
from attrs import field, frozen

from helexa.conversation import Json, Message
from helexa.errors import InvalidRequest
from helexa.wire.fields import as_integer

MAX_LISTED = 100


@frozen
class Stored:
    """One response and all that was said up to its end.

    `messages` is the conversation with its answer, without the instructions; `input` and `output` are
    the items of this one request, as JSON lists, and `earlier` those that it goes on from, in lists
    which the responses of a conversation share.  `response` is the response object.  `compacts`: the
    output stands in the place of all that was said before.
    """

    id: str
    messages: tuple[Message, ...]
    input: bytes
    output: bytes
    response: bytes = field(repr=False)
    earlier: tuple[bytes, ...] = field(default=(), repr=False)
    compacts: bool = False

    @property
    def all_items(self) -> tuple[bytes, ...]:
        """Those that a next response goes on from."""
        return (self.output,) if self.compacts else (*self.earlier, self.input, self.output)

    def items(self) -> dict[str, Json]:
        """Those of this request and of its answer, by their ids."""
        items = [*orjson.loads(self.input), *orjson.loads(self.output)]
        return {item["id"]: item for item in items if item.get("type") != "item_reference"}


class Past(Protocol):
    """The responses of one account."""

    def find(self, response_id: str) -> Stored:
        """ResponseNotFound if there is none, or none any more, or it belongs to somebody else."""

    def keep(self, stored: Stored) -> None: ...


def write_input_items(
    stored: Stored, *, order: str = "desc", limit: str = "20", after: str | None = None
) -> bytes:
    """A page of all that a response answers, also of earlier responses, from the query parameters; the
    newest item first unless `order` is "asc".  InvalidRequest names the parameter that is wrong."""
    items = [item for part in (*stored.earlier, stored.input) for item in orjson.loads(part)]
    if order not in ("asc", "desc"):
        raise InvalidRequest("`order` must be asc or desc.", param="order")
    if order == "desc":
        items.reverse()
    most = as_integer(
        int(limit) if limit.isdecimal() and len(limit) < 9 else None, "limit", 1, MAX_LISTED
    )
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise InvalidRequest("`after` must be the id of an input item.", param="after")
        items = items[ids.index(after) + 1 :]
    page = items[:most]
    listed = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > most,
    }
    return orjson.dumps(listed)


def write_deleted(response_id: str) -> bytes:
    return orjson.dumps({"id": response_id, "object": "response", "deleted": True})
