"""Calls of tools as items, in both directions."""

from collections.abc import Callable

import orjson

from helexa.conversation import Json, Message, Part, ToolCall, ToolResult
from helexa.wire.fields import MAX_JSON_BYTES, Fields
from helexa.wire.openai_responses.content import read_output, write_output
from helexa.wire.openai_responses.partial import read_input
from helexa.wire.openai_responses.tools import Kind, Origin, Toolbox
from helexa.wire.request import free_text_arguments, read_arguments


def read_function_call(item: Fields, toolbox: Toolbox) -> ToolCall:
    return read_call(item, toolbox, "function", read_arguments(item))


def read_custom_call(item: Fields, toolbox: Toolbox) -> ToolCall:
    return read_call(item, toolbox, "custom", free_text_arguments(item.text("input") or ""))


def read_call(item: Fields, toolbox: Toolbox, kind: Kind, arguments: str) -> ToolCall:
    origin = Origin(kind, item.required_text("name"), item.text("namespace"))
    return ToolCall(read_call_id(item), toolbox.name(origin), arguments)


def read_call_id(item: Fields) -> str:
    """A call without an id of its own is known by the id of its item."""
    return item.text("call_id") or item.text("id") or ""


def read_result(item: Fields) -> Message:
    """`is_error` is an extension; other servers ignore it."""
    failed = item.flag("is_error") or False
    return Message(
        "tool", (ToolResult(read_call_id(item), read_output(item), failed),), item.text("name")
    )


def read_action(name: str, key: str) -> Callable[[Fields, Toolbox], ToolCall]:
    """The reader of a call of a tool that OpenAI defines and the client runs."""

    def read(item: Fields, toolbox: Toolbox) -> ToolCall:
        item.bound(key, MAX_JSON_BYTES)
        return ToolCall(read_call_id(item), name, orjson.dumps(item.get(key)).decode())

    return read


CALLS: dict[str, Callable[[Fields, Toolbox], Part]] = {
    "function_call": read_function_call,
    "custom_tool_call": read_custom_call,
    "local_shell_call": read_action("local_shell", "action"),
    "shell_call": read_action("shell", "action"),
    "apply_patch_call": read_action("apply_patch", "operation"),
}
RESULTS = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "local_shell_call_output",
        "shell_call_output",
        "apply_patch_call_output",
    }
)


# -- the other direction -----------------------------------------------------------------------------


def write_call(origin: Origin, call_id: str, arguments: str) -> dict[str, Json]:
    """A call as an item, without its own id and status."""
    where = {} if origin.namespace is None else {"namespace": origin.namespace}
    named = {"call_id": call_id, "name": origin.name} | where
    if origin.kind == "custom":
        return {"type": "custom_tool_call", **named, "input": read_input(arguments)}
    return {"type": "function_call", **named, "arguments": arguments}


def write_result(result: ToolResult, name: str | None) -> Json:
    item: dict[str, Json] = {
        "type": "function_call_output",
        "call_id": result.call_id,
        "output": write_output(result.content),
    }
    if result.is_error:
        item["is_error"] = True
    if name is not None:
        item["name"] = name
    return item
