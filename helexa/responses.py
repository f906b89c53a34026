"""The responses that clients may go on from: in memory alone, bounded by bytes and by age."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator

from attrs import define, field, frozen

from helexa.conversation import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult
from helexa.errors import ResponseNotFound
from helexa.wire.openai_responses.stored import Stored

MB = 1024 * 1024
LONGEST_ID = 100  # characters, in an error
OBJECT_BYTES = 100  # about what an object takes beside the text that it holds


@frozen
class Kept:
    stored: Stored
    size: int
    kept_at: float


@define(eq=False)
class Account:
    """The responses of one account, the oldest first, and their bytes."""

    kept: OrderedDict[str, Kept] = field(factory=OrderedDict)
    size: int = 0

    def add(self, kept: Kept) -> None:
        self.drop(kept.stored.id)
        self.kept[kept.stored.id] = kept
        self.size += kept.size

    def drop(self, response_id: str) -> None:
        kept = self.kept.pop(response_id, None)
        self.size -= kept.size if kept else 0

    @property
    def oldest(self) -> Kept:
        return next(iter(self.kept.values()))


@define(eq=False)
class Responses:
    """Stored responses of every account; used from the Trio thread alone.

    What is over a bound goes, oldest first: more than `account_bytes` of one account, more than
    `max_bytes` in all, or older than `max_seconds`.  A response is found by its own account alone.
    """

    max_bytes: int = 512 * MB
    account_bytes: int = 128 * MB
    max_seconds: float = 24 * 3600.0
    _accounts: dict[str, Account] = field(factory=dict, init=False)  # none of them is empty

    def of(self, account_id: str, clock: Callable[[], float]) -> "AccountResponses":
        """The responses of one account; `clock` gives the time in seconds, such as
        `trio.current_time`."""
        return AccountResponses(self, account_id, clock)

    @property
    def size(self) -> int:
        """Bytes of all that is kept; what two responses of a conversation share counts for each."""
        return sum(account.size for account in self._accounts.values())

    def find(self, account_id: str, response_id: str, now: float) -> Stored:
        self._expire(now)
        account = self._accounts.get(account_id, Account())
        if response_id not in account.kept:
            raise ResponseNotFound(
                f"There is no response {response_id[:LONGEST_ID]!r}, or it is not kept any more."
            )
        return account.kept[response_id].stored

    def keep(self, account_id: str, stored: Stored, now: float) -> None:
        self._expire(now)
        size = size_of(stored)
        if size > min(self.account_bytes, self.max_bytes):
            return
        while self._size(account_id) + size > self.account_bytes:
            self._drop(account_id, self._accounts[account_id].oldest.stored.id)
        while self.size + size > self.max_bytes:
            self._drop_oldest()
        self._accounts.setdefault(account_id, Account()).add(Kept(stored, size, now))

    def forget(self, account_id: str, response_id: str, now: float) -> None:
        self.find(account_id, response_id, now)
        self._drop(account_id, response_id)

    def _size(self, account_id: str) -> int:
        return self._accounts[account_id].size if account_id in self._accounts else 0

    def _expire(self, now: float) -> None:
        while self._accounts and now - self._oldest()[1].kept_at > self.max_seconds:
            self._drop_oldest()

    def _oldest(self) -> tuple[str, Kept]:
        oldest = ((account_id, account.oldest) for account_id, account in self._accounts.items())
        return min(oldest, key=lambda found: found[1].kept_at)

    def _drop_oldest(self) -> None:
        account_id, kept = self._oldest()
        self._drop(account_id, kept.stored.id)

    def _drop(self, account_id: str, response_id: str) -> None:
        account = self._accounts[account_id]
        account.drop(response_id)
        if not account.kept:
            del self._accounts[account_id]


@frozen
class AccountResponses:
    """What one account may see: a `helexa.wire.openai_responses.Past`."""

    responses: Responses
    account_id: str
    clock: Callable[[], float]

    def find(self, response_id: str) -> Stored:
        """ResponseNotFound if there is none, or none any more, or it belongs to somebody else."""
        return self.responses.find(self.account_id, response_id, self.clock())

    def keep(self, stored: Stored) -> None:
        """One that is too large for the bounds is not kept."""
        self.responses.keep(self.account_id, stored, self.clock())

    def forget(self, response_id: str) -> None:
        """ResponseNotFound as with `find`."""
        self.responses.forget(self.account_id, response_id, self.clock())


def size_of(stored: Stored) -> int:
    """Bytes of memory, a little more than less."""
    texts = [text for message in stored.messages for text in texts_of(message)]
    blobs = (stored.id, *stored.earlier, stored.input, stored.output, stored.response, *texts)
    return sum(sys.getsizeof(blob) + OBJECT_BYTES for blob in blobs)


def texts_of(message: Message) -> Iterator[str]:
    yield message.name or ""
    for part in message.parts:
        yield from texts_of_part(part)


def texts_of_part(part: Part) -> Iterator[str]:
    match part:
        case Text(text) | Reasoning(text):
            yield text
        case Image(data_uri):
            yield data_uri
        case ToolCall(call_id, name, arguments):
            yield from (call_id, name, arguments)
        case ToolResult(call_id, content):
            yield call_id
            for piece in content:
                yield from texts_of_part(piece)
