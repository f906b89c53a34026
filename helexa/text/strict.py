"""Messages as strict chat templates insist on having them.  Pure.

Some forms are chosen by what can be seen in a template's source (`text.source`), the others are tried
where a template fails (`text.render`).
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal

from helexa.conversation import Json
from helexa.text.chat import ChatMessage, dumps

SHORT_ID_CHARACTERS = 9

# How calls are written into what an assistant said, where the template does not write them.
Writing = Literal["tagged", "list", "pythonic"]


def in_parts(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Content as a list of parts throughout."""
    return [
        message | {"content": [{"type": "text", "text": content}] if content else []}
        if isinstance(content := message["content"], str)
        else message
        for message in messages
    ]


def with_calls(
    messages: Sequence[ChatMessage], change: Callable[[Json], Json]
) -> list[ChatMessage]:
    return [
        message | {"tool_calls": [change(call) for call in calls]}
        if (calls := message.get("tool_calls"))
        else message
        for message in messages
    ]


def with_text_arguments(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Arguments of calls as JSON text."""

    def written(call: Json) -> Json:
        function = call["function"]
        arguments = function["arguments"]
        text = arguments if isinstance(arguments, str) else dumps(arguments)
        return call | {"function": function | {"arguments": text}}

    return with_calls(messages, written)


def with_short_ids(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Calls have ids of nine letters and digits, the same one for the same id whatever the request."""
    return [
        message | {"tool_call_id": short_id(message["tool_call_id"])}
        if "tool_call_id" in message
        else message
        for message in with_calls(messages, lambda call: call | {"id": short_id(call["id"])})
    ]


def short_id(id: str) -> str:
    if len(id) == SHORT_ID_CHARACTERS and id.isascii() and id.isalnum():
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:SHORT_ID_CHARACTERS]


def with_function_ids(
    messages: Sequence[ChatMessage], *, per_turn: bool = False
) -> list[ChatMessage]:
    """Calls have the ids that Kimi writes, functions.NAME:NUMBER: its templates tell the name by it.

    Numbers go on through the conversation, or begin anew with every turn.
    """
    ids: dict[str, str] = {}
    numbers = count()

    def named(call: Json) -> Json:
        ids[call["id"]] = f"functions.{call['function']['name']}:{next(numbers)}"
        return call | {"id": ids[call["id"]]}

    turns: list[ChatMessage] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            numbers = count() if per_turn else numbers
            turns.append(message | {"tool_calls": [named(call) for call in calls]})
        elif "tool_call_id" in message:
            id = message["tool_call_id"]
            turns.append(message | {"tool_call_id": ids.get(id, id)})
        else:
            turns.append(message)
    return turns


def one_call_each(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """A turn for every call and its result right after it, for models that call one tool at a time."""
    turns: list[ChatMessage] = []
    rest = deque(messages)
    while rest:
        turn = rest.popleft()
        if len(calls := turn.get("tool_calls", ())) < 2:
            turns.append(turn)
            continue
        results: list[ChatMessage] = []
        while rest and rest[0]["role"] == "tool":
            results.append(rest.popleft())
        for call in calls:
            turns.append(turn | {"tool_calls": [call]})
            turns += [result for result in results if result["tool_call_id"] == call["id"]]
            turn = {"role": turn["role"], "content": ""}  # what it said and thought came first
        known = {call["id"] for call in calls}
        turns += [result for result in results if result["tool_call_id"] not in known]
    return turns


def with_thought_parts(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """What was thought is a part of the content, as Mistral has it."""
    return [thought_part(message) for message in messages]


def thought_part(message: ChatMessage) -> ChatMessage:
    thought, content = message.get("reasoning_content"), message["content"]
    if not thought or not (content or message.get("tool_calls")):
        return message
    said = [{"type": "text", "text": content}] if content else []
    own = {key: value for key, value in message.items() if key != "reasoning_content"}
    return own | {"content": [{"type": "thinking", "thinking": thought}, *said]}


def without_thoughts(messages: Sequence[ChatMessage], *, mixed: bool = False) -> list[ChatMessage]:
    """Without what was thought: anywhere, or where text and calls followed if `mixed`."""
    return [
        {key: value for key, value in message.items() if key != "reasoning_content"}
        if not mixed or (message["content"] and message.get("tool_calls"))
        else message
        for message in messages
    ]


def simplified(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """No system message, no turn of the assistant in which it did nothing, and no two in a row from one
    side: the text goes into the next user's, and what a user says right after a tool's result into that.
    """
    turns = [turn for turn in messages[:-1] if not is_idle(turn)] + list(messages[-1:])
    if turns and turns[0]["role"] == "system":
        turns[0] = {"role": "user", "content": turns[0]["content"]}
    joined: list[ChatMessage] = []
    for turn in turns:
        if joined and can_join(joined[-1], turn):
            joined[-1] = joined[-1] | {"content": f"{joined[-1]['content']}\n\n{turn['content']}"}
        else:
            joined.append(turn)
    return joined


def is_idle(turn: ChatMessage) -> bool:
    return turn["role"] == "assistant" and not turn["content"] and not turn.get("tool_calls")


def can_join(first: ChatMessage, second: ChatMessage) -> bool:
    roles = (first["role"], second["role"])
    return (
        roles in (("user", "user"), ("assistant", "assistant"), ("tool", "user"))
        and not first.get("tool_calls")
        and not second.get("tool_calls")
        and isinstance(first["content"], str)
        and isinstance(second["content"], str)
    )


# -- what a template leaves out ----------------------------------------------------------------------


def with_written_calls(messages: Sequence[ChatMessage], writing: Writing) -> list[ChatMessage]:
    """Calls in the words of the assistant, as the model itself writes them."""
    return [
        {
            "role": message["role"],
            "content": "\n".join(filter(None, [message["content"], written(calls, writing)])),
        }
        if (calls := message.get("tool_calls"))
        else message
        for message in messages
    ]


def written(calls: Sequence[Json], writing: Writing) -> str:
    functions = [call["function"] for call in calls]
    match writing:
        case "tagged":
            return "\n".join(f"<tool_call>\n{dumps(f)}\n</tool_call>" for f in functions)
        case "list":
            return f"<|tool_call|>{dumps(functions)}"
        case "pythonic":
            return f"<|tool_call_start|>[{', '.join(map(pythonic, functions))}]<|tool_call_end|>"


def pythonic(function: Json) -> str:
    arguments = function["arguments"]
    if not isinstance(arguments, dict):
        return f"{function['name']}({arguments})"
    return (
        f"{function['name']}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    )


def described(tools: Sequence[Json]) -> list[Json]:
    """The tools with a description of every argument, be it empty: some templates take it for granted."""
    return [tool | {"function": with_descriptions(tool["function"])} for tool in tools]


def with_descriptions(function: Json) -> Json:
    schema = function["parameters"]
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return function | {"parameters": {"type": "object", "properties": {}}}
    told = {
        key: {"description": ""} | value if isinstance(value, dict) else value
        for key, value in properties.items()
    }
    return function | {"parameters": {"required": []} | schema | {"properties": told}}
