"""One message of a chat request, in both directions."""

from collections.abc import Iterator, Sequence
from typing import get_args

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
from helexa.wire.fields import Fields
from helexa.wire.openai_chat.calls import write_calls
from helexa.wire.request import free_text_arguments, read_arguments, read_data_uri, read_parts

MAX_TOOL_CALLS = 256
ROLES: tuple[str, ...] = (*get_args(Role), "function")


def read_message(message: Fields) -> Message:
    role = message.required_text("role")
    name = message.text("name")
    match role:
        case "system" | "developer" | "user":
            return Message(role, read_content(message), name)
        case "assistant":
            said = (*read_content(message), *read_refusal(message))
            return Message(role, (*read_thought(message), *said, *read_calls(message)), name)
        case "tool":
            return Message("tool", (read_result(message, read_call_id(message, name)),), name)
        case "function":  # the form before tools: a call has no id but its name
            name = message.required_text("name")
            return Message("tool", (read_result(message, name),), name)
        case _:
            message.refuse("role", f"must be one of {', '.join(ROLES)}")


def read_result(message: Fields, call_id: str) -> ToolResult:
    """`is_error` is an extension; other servers ignore it."""
    return ToolResult(call_id, read_content(message), message.flag("is_error") or False)


def read_call_id(message: Fields, name: str | None) -> str:
    """Some clients name the tool of a result and not its call."""
    if name is not None and not message.has("tool_call_id"):
        return name
    return message.required_text("tool_call_id")


# -- content ---------------------------------------------------------------------------------------


def read_content(message: Fields) -> tuple[Text | Image, ...]:
    return read_parts(message, "content", read_part)


def read_part(part: Fields) -> Text | Image:
    match part.required_text("type"):
        case "text" | "input_text" | "output_text":
            return Text(part.required_text("text"))
        case "refusal":
            return Text(part.required_text("refusal"))
        case "image_url" if isinstance(part.get("image_url"), str):
            return read_data_uri(part, "image_url")
        case "image_url":
            return read_data_uri(part.required_object("image_url"), "url")
        case _:
            part.refuse("type", "must be text or image_url: other content is not supported")


# -- what an assistant turn holds beside its text -----------------------------------------------------


def read_thought(message: Fields) -> Iterator[Reasoning]:
    text = message.text("reasoning_content") or message.text("reasoning")
    if text:
        yield Reasoning(text)


def read_refusal(message: Fields) -> Iterator[Text]:
    """What an answer of OpenAI's says in place of content."""
    text = message.text("refusal")
    if text and not message.has("content"):
        yield Text(text)


def read_calls(message: Fields) -> Iterator[ToolCall]:
    for call in message.objects("tool_calls", MAX_TOOL_CALLS) or ():
        yield read_call(call)
    legacy = message.object("function_call")
    if legacy:
        yield ToolCall(legacy.required_text("name"), *read_function(legacy))


def read_call(call: Fields) -> ToolCall:
    """Some clients leave the id out, some send the arguments of a call that was cut off."""
    call_id = call.text("id") or ""
    match call.text("type"):
        case "function" | None:
            return ToolCall(call_id, *read_function(call.required_object("function")))
        case "custom":
            custom = call.required_object("custom")
            given = free_text_arguments(custom.text("input") or "")
            return ToolCall(call_id, custom.required_text("name"), given)
        case _:
            call.refuse("type", "must be function or custom: other tool calls are not supported")


def read_function(function: Fields) -> tuple[str, str]:
    """Name and arguments."""
    arguments = read_arguments(function)
    return function.required_text("name"), arguments


# -- the other direction -----------------------------------------------------------------------------


def write_messages(message: Message) -> Iterator[Json]:
    """`message` as chat messages: each tool result is one of its own, before what else was said."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    others = [part for part in message.parts if not isinstance(part, ToolResult)]
    for result in results:
        yield write_result(result) | write_name(message)
    if others or not results:
        yield {"role": message.role} | write_said(others) | write_name(message)


def write_result(result: ToolResult) -> dict[str, Json]:
    content = write_content(result.content)
    failed = {"is_error": True} if result.is_error else {}
    return {"role": "tool", "tool_call_id": result.call_id, "content": content, **failed}


def write_said(parts: Sequence[Part]) -> dict[str, Json]:
    said = [part for part in parts if isinstance(part, Text | Image)]
    thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
    calls = tuple(part for part in parts if isinstance(part, ToolCall))
    written: dict[str, Json] = {"content": write_content(tuple(said))}
    if thought:
        written["reasoning_content"] = thought
    return written | write_calls(calls, legacy=False)


def write_content(parts: tuple[Text | Image, ...]) -> Json:
    match parts:
        case ():
            return ""
        case (Text(text),):
            return text
        case _:
            return [write_part(part) for part in parts]


def write_part(part: Text | Image) -> Json:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(data_uri):
            return {"type": "image_url", "image_url": {"url": data_uri}}


def write_name(message: Message) -> dict[str, Json]:
    return {"name": message.name} if message.name is not None else {}
