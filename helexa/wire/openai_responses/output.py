"""The answer while it comes: deltas to items, and to the events that tell of them."""

from attrs import define, field

from helexa.conversation import (
    Delta,
    Json,
    Message,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from helexa.wire.answer import Choice
from helexa.wire.openai_responses.asked import Asked
from helexa.wire.openai_responses.item import (
    CallItem,
    CompactionItem,
    Item,
    MessageItem,
    ReasoningItem,
    Spot,
    Status,
    Told,
)
from helexa.wire.openai_responses.items import SUMMARY

SAYS = (MessageItem, CompactionItem)


@define(eq=False)
class Output:
    """The items of one answer, one open at a time; `tag` makes their ids."""

    asked: Asked
    tag: str
    items: list[Json] = field(factory=list, init=False)  # those that are complete
    _closed: list[Item] = field(factory=list, init=False)
    _open: Item | None = field(default=None, init=False)

    @property
    def message(self) -> MessageItem | None:
        """The open item, if it is a message."""
        return self._open if isinstance(self._open, MessageItem) else None

    def take(self, event: Delta) -> Told:
        match event:
            case TextDelta(_, text, logprobs) if text or logprobs:
                message = self._open if isinstance(self._open, SAYS) else self._message()
                yield from self._enter(message)
                yield from message.say(text, logprobs)
            case ReasoningDelta(_, text) if text:
                thought = self._open if isinstance(self._open, ReasoningItem) else self._thought()
                yield from self._enter(thought)
                yield from thought.think(text)
            case ToolCallStarted(_, _, call_id, name):
                yield from self._enter(self._call(call_id, name))
            case ToolCallDelta(_, _, arguments) if arguments and isinstance(self._open, CallItem):
                yield from self._open.argue(arguments)

    def end(self, status: Status) -> Told:
        """The last item has the status of the answer; an answer has at least one item."""
        if self._open is None:
            yield from self._enter(self._message())
        yield from self._close(status)

    def messages(self) -> tuple[Message, ...]:
        """What a next request goes on from."""
        parts = tuple(item.part for item in self._closed if item.part != Text(""))
        if self.asked.compacts:
            summary = "".join(part.text for part in parts if isinstance(part, Text))
            return (Message("user", (Text(SUMMARY + summary),)),)
        return (*self.asked.kept, Message("assistant", parts))

    def _enter(self, item: Item) -> Told:
        if item is not self._open:
            yield from self._close("completed")
            self._open = item
            yield from item.begin()

    def _close(self, status: Status) -> Told:
        if self._open is not None:
            yield from self._open.end(status)
            self.items.append(self._open.json(status))
            self._closed.append(self._open)
            self._open = None

    def _message(self) -> MessageItem | CompactionItem:
        if self.asked.compacts:
            return CompactionItem(self._spot("cmp"))
        return MessageItem(self._spot("msg"))

    def _thought(self) -> ReasoningItem:
        shown = self.asked.shown
        return ReasoningItem(self._spot("rs"), shown.summary, shown.encrypted)

    def _call(self, call_id: str, name: str) -> CallItem:
        origin = self.asked.toolbox.origin(name)
        return CallItem(
            self._spot("ctc" if origin.kind == "custom" else "fc"), origin, call_id, name
        )

    def _spot(self, prefix: str) -> Spot:
        index = len(self._closed) + (self._open is not None)
        return Spot(f"{prefix}_{self.tag}_{index}", index)


def fill(output: Output, choice: Choice) -> None:
    """Take a whole answer."""
    deltas: list[Delta] = [
        ReasoningDelta(0, choice.reasoning),
        TextDelta(0, choice.text, choice.logprobs),
    ]
    for index, call in enumerate(choice.calls):
        deltas.append(ToolCallStarted(0, index, call.id, call.name))
        deltas.append(ToolCallDelta(0, index, call.arguments))
    for delta in deltas:
        exhaust(output.take(delta))


def exhaust(told: Told) -> None:
    for _ in told:
        pass
