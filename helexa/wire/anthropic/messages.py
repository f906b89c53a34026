"""The turns of a Messages request as neutral messages."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from helexa.conversation import Message, Part, Reasoning, Role, Text, ToolCall, ToolResult
from helexa.wire.anthropic.blocks import Note, read_content
from helexa.wire.fields import Fields
from helexa.wire.request import MAX_MESSAGES

MAX_SYSTEM_BLOCKS = 1024
ROLES: tuple[Role, ...] = ("user", "assistant", "system")


def read_messages(body: Fields) -> Iterator[Message | Note]:
    """What the system says, then the turns: two in a row from one side are one, as Anthropic has it.

    An assistant's empty last turn asks for nothing but an answer, so it is left out.
    """
    turns = body.objects("messages", MAX_MESSAGES)
    if not turns:
        body.refuse("messages", "is required and must be a list of at least one message")
    found = [said for turn in turns for said in read_turn(turn)]
    notes = [said for said in found if isinstance(said, Note)]
    messages = list(joined(said for said in found if isinstance(said, Message)))
    if len(messages) > 1 and messages[-1] == Message("assistant", ()):
        del messages[-1]
    yield from read_system(body)
    yield from messages
    yield from notes


def read_system(body: Fields) -> Iterator[Message]:
    system = body.get("system")
    if isinstance(system, str):
        parts: Sequence[Text] = [Text(system)]
    elif isinstance(system, list | None):
        blocks = body.objects("system", MAX_SYSTEM_BLOCKS) or ()
        parts = [read_system_block(block) for block in blocks]
    else:
        body.refuse("system", "must be a string or a list of text blocks")
    said = tuple(part for part in parts if part.text)
    if said:
        yield Message("system", said)


def read_system_block(block: Fields) -> Text:
    if block.required_text("type") != "text":
        block.refuse("type", "must be text: a system prompt is nothing else")
    return Text(block.required_text("text"))


def read_turn(turn: Fields) -> Iterator[Message | Note]:
    """One turn: each result of a tool is a message of its own, before what else the turn says."""
    role = read_role(turn)
    parts: list[Part] = []
    results = 0
    for found in read_content(turn):
        match found:
            case Note():
                yield found
            case ToolResult() if role == "user":
                results += 1
                yield Message("tool", (found,))
            case ToolResult():
                turn.refuse("content", "must not hold tool_result blocks: a user's turn does")
            case ToolCall() | Reasoning() if role != "assistant":
                turn.refuse(
                    "content", "must not hold tool_use or thinking: an assistant's turn does"
                )
            case _:
                parts.append(found)
    if parts or not results:
        yield Message(role, tuple(parts))


def read_role(turn: Fields) -> Role:
    found = turn.required_text("role")
    for role in ROLES:
        if role == found:
            return role
    turn.refuse("role", f"must be one of {', '.join(ROLES)}")


def joined(messages: Iterable[Message]) -> Iterator[Message]:
    for role, turns in groupby(messages, key=attrgetter("role")):
        if role in ("user", "assistant"):
            yield Message(role, tuple(part for turn in turns for part in turn.parts))
        else:
            yield from turns
