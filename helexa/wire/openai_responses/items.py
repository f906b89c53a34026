"""The input of a request: items, in both directions.

A conversation has turns, the input has items: what an assistant thinks, says and calls in a row is one
turn, unless it says something twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import cast, get_args

from attrs import define, field

from helexa.conversation import (
    Image,
    Json,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from helexa.errors import ResponseNotFound
from helexa.wire.fields import Fields, as_object
from helexa.wire.opaque import unwrap
from helexa.wire.openai_responses.calls import CALLS, RESULTS, read_result, write_call, write_result
from helexa.wire.openai_responses.content import read_content, write_content
from helexa.wire.openai_responses.stored import Past
from helexa.wire.openai_responses.tools import Origin, Toolbox

MAX_ITEMS = 16384
SUMMARY = "Summary of the conversation so far, which was too long to go on with:\n\n"
ROLES = tuple(role for role in get_args(Role) if role != "tool")


@define(eq=False)
class ItemReader:
    """Takes items in order; `messages` is what they say.

    `wants_summary` is set by an item that asks to compact the conversation.  `notes` tell what was left
    out.
    """

    toolbox: Toolbox
    past: Past | None = None
    messages: list[Message] = field(factory=list, init=False)
    notes: list[str] = field(factory=list, init=False)
    wants_summary: bool = field(default=False, init=False)
    _turn: list[Part] | None = field(default=None, init=False)  # of the assistant, still open
    _name: str | None = field(default=None, init=False)
    _said: bool = field(default=False, init=False)  # the item before was a message of the assistant
    _found: dict[str, dict[str, Json]] = field(
        factory=dict, init=False
    )  # stored items, by response

    @property
    def looked_back(self) -> bool:
        """Whether an item stood for one that is kept here."""
        return bool(self._found)

    def read(self, body: Fields) -> None:
        """`input`: a string, which is what the user says, or a list of items."""
        given = body.get("input")
        if isinstance(given, str):
            self.messages.append(Message("user", (Text(given),) if given else ()))
        elif given is not None and not isinstance(given, list):
            body.refuse("input", "must be a string or a list of items")
        else:
            for item in body.objects("input", MAX_ITEMS) or ():
                self.read_item(item)
        self._close()

    def read_item(self, item: Fields) -> None:
        kind = item.text("type") or guess_type(item)
        item.text("id")  # it is told again, and the item is found by it
        said, self._said = self._said, False
        match kind:
            case "message":
                self._read_message(item, said)
            case "reasoning":
                self._join(*self._read_reasoning(item))
            case "item_reference":
                self.read_item(self._resolve(item))
            case "compaction" | "compaction_summary" | "context_compaction":
                self._read_summary(item)
            case "compaction_trigger":
                self.wants_summary = True
            case _ if kind in CALLS:
                self._join(CALLS[kind](item, self.toolbox))
            case _ if kind in RESULTS:
                self._close()
                self.messages.append(read_result(item))
            case _:
                self.notes.append(f"{item.path}: an item of type {kind[:40]} was skipped")

    def _read_message(self, item: Fields, said: bool) -> None:
        role, name = item.required_text("role"), item.text("name")
        parts = read_content(item)
        match role:
            case "system" | "developer" | "user":
                self._close()
                self.messages.append(Message(role, parts, name))
            case "assistant":
                if said or (name is not None and self._name is not None):
                    self._close()
                self._said = True
                self._join(*parts)
                self._name = self._name if name is None else name
            case _:
                item.refuse("role", f"must be one of {', '.join(ROLES)}")

    def _read_reasoning(self, item: Fields) -> Iterator[Reasoning]:
        sealed = item.text("encrypted_content")
        content, summary = read_texts(item, "content"), read_texts(item, "summary")
        text = None if sealed is None else unwrap(sealed)
        if text is None:
            text = "".join(content) or "\n\n".join(summary)
        if text:
            yield Reasoning(text)
        elif sealed is not None:
            self.notes.append(f"{item.path}: reasoning that another server encrypted was skipped")

    def _read_summary(self, item: Fields) -> None:
        self._close()
        text = unwrap(item.text("encrypted_content") or "")
        if text is None:
            self.notes.append(f"{item.path}: a summary that another server encrypted was skipped")
        else:
            self.messages.append(Message("user", (Text(SUMMARY + text),)))

    def _resolve(self, reference: Fields) -> Fields:
        item_id = reference.required_text("id")
        response_id = response_of(item_id)
        if response_id not in self._found:
            self._found[response_id] = stored_items(self.past, response_id)
        found = self._found[response_id].get(item_id)
        if found is None:
            reference.refuse(
                "id", "must be the id of an item that is kept here: send the item itself"
            )
        return as_object(found, reference.path)

    def _join(self, *parts: Part) -> None:
        """An item that gives nothing begins no turn, but a message does."""
        if self._turn is None and (parts or self._said):
            self._turn = []
        if self._turn is not None:
            self._turn.extend(parts)

    def _close(self) -> None:
        if self._turn is not None:
            self.messages.append(Message("assistant", tuple(self._turn), self._name))
        self._turn, self._name = None, None


def guess_type(item: Fields) -> str:
    if item.has("role"):
        return "message"
    if item.has("id") and len(item.values) <= 2:
        return "item_reference"
    item.refuse("type", "is required")


def read_texts(item: Fields, key: str) -> list[str]:
    return [part.text for part in read_content(item, key) if isinstance(part, Text)]


def response_of(item_id: str) -> str:
    """The ids of items hold that of the response which they came with."""
    _, _, rest = item_id.partition("_")
    return f"resp_{rest.partition('_')[0]}"


def stored_items(past: Past | None, response_id: str) -> dict[str, Json]:
    try:
        return {} if past is None else past.find(response_id).items()
    except ResponseNotFound:
        return {}


# -- the other direction -----------------------------------------------------------------------------


def write_items(message: Message) -> Iterator[Json]:
    """`message` as items: the results of tools first, then what else is said."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    others = [part for part in message.parts if not isinstance(part, ToolResult)]
    yield from (write_result(result, message.name) for result in results)
    if message.role == "assistant":
        yield from write_turn(others, message.name)
    elif others or not results:
        content = write_content(tuple(part for part in others if isinstance(part, Text | Image)))
        yield write_message(message.role, content, message.name)


def write_turn(parts: Sequence[Part], name: str | None) -> Iterator[Json]:
    """Thoughts, words and calls of an assistant in their order; a name needs a message to stand on."""
    speaks = any(isinstance(part, Text | Image) for part in parts)
    if not parts or (name is not None and not speaks):
        yield write_message("assistant", [], name)
        name = None
    for kind, group in groupby(parts, key=type_of):
        if kind is Text:
            content = write_content(tuple(cast(Iterable[Text | Image], group)), "output_text")
            yield write_message("assistant", content, name)
            name = None
        else:
            yield from map(write_part, group)


def type_of(part: Part) -> type[Part]:
    return Text if isinstance(part, Image) else type(part)


def write_part(part: Part) -> Json:
    match part:
        case Reasoning(text):
            return write_reasoning(text)
        case ToolCall(call_id, name, arguments):
            return write_call(Origin("function", name), call_id, arguments)


def write_message(role: str, content: list[Json], name: str | None) -> Json:
    named = {} if name is None else {"name": name}
    return {"type": "message", "role": role, "content": content} | named


def write_reasoning(text: str) -> dict[str, Json]:
    return {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }
