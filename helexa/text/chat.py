"""A conversation as the list of messages that a chat template reads.  Pure.

`messages_of` is the common form, `without_tools` the one for templates that know no tools;
`text.strict` has those of templates that insist on more.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import orjson

from helexa.conversation import (
    Conversation,
    Image,
    Json,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

ChatMessage = dict[str, Any]

# A line that Claude Code puts first into its system prompt.  It differs from request to request, so
# that no prefix of two prompts would ever be the same.
BILLING_LINE = "x-anthropic-billing-header:"
ERROR = "Error: "


def messages_of(conversation: Conversation) -> list[ChatMessage]:
    """All that the system and the developer said in one leading system message, then the turns.

    Arguments of tool calls are objects where they parse, else they stay text; each tool result is a
    message of its own, bears the name of its tool and has the place of its call.
    """
    names = call_names(conversation.messages)
    system = "\n\n".join(system_texts(conversation.messages))
    leading = [{"role": "system", "content": system}] if system else []
    said = (message for message in conversation.messages if not is_system(message))
    turns = (turn for message in said for turn in turns_of(message, names))
    return [*leading, *results_in_order(turns)]


def is_system(message: Message) -> bool:
    return message.role in ("system", "developer")


def system_texts(messages: Sequence[Message]) -> Iterator[str]:
    for message in filter(is_system, messages):
        for part in message.parts:
            if isinstance(part, Text) and (text := without_billing_line(part.text)):
                yield text


def without_billing_line(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(BILLING_LINE) else text


def call_names(messages: Sequence[Message]) -> dict[str, str]:
    parts = (part for message in messages for part in message.parts)
    return {part.id: part.name for part in parts if isinstance(part, ToolCall)}


def turns_of(message: Message, names: dict[str, str]) -> Iterator[ChatMessage]:
    """The tool results of a message, then what else it says."""
    said = [part for part in message.parts if not isinstance(part, ToolResult)]
    for part in message.parts:
        if isinstance(part, ToolResult):
            name = message.name or names.get(part.call_id, "")
            content = result_of(part)
            yield {"role": "tool", "tool_call_id": part.call_id, "name": name, "content": content}
    if said or message.role != "tool":
        yield turn_of(message.role, said)


def results_in_order(turns: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """The results of calls in the order of the calls: most templates tell by that alone which is whose,
    and clients that run their tools at once send the result first that was there first."""
    places: dict[str, int] = {}
    for is_result, run in groupby(turns, lambda turn: turn["role"] == "tool"):
        if is_result:
            yield from sorted(run, key=lambda turn: places.get(turn["tool_call_id"], len(places)))
            continue
        said = list(run)
        yield from said
        places = {call["id"]: place for place, call in enumerate(said[-1].get("tool_calls", ()))}


def turn_of(role: str, parts: Sequence[Part]) -> ChatMessage:
    turn: ChatMessage = {"role": role, "content": content_of(parts)}
    thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
    calls = [call_of(part) for part in parts if isinstance(part, ToolCall)]
    if thought:
        turn["reasoning_content"] = thought
    if calls:
        turn["tool_calls"] = calls
    return turn


def result_of(result: ToolResult) -> Json:
    """What a tool gave.  Templates know no errors, so that the text has to say it is one."""
    content = content_of(result.content)
    says_so = not isinstance(content, str) or "error" in content[:64].lower()
    return content if says_so or not result.is_error else ERROR + content


def content_of(parts: Sequence[Part]) -> Json:
    """Text, or a list of parts where there are pictures."""
    said = [part for part in parts if isinstance(part, Text | Image)]
    if any(isinstance(part, Image) for part in said):
        return [
            {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
            for part in said
        ]
    return "\n".join(part.text for part in said if isinstance(part, Text))


def call_of(call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": arguments_of(call)}
    return {"id": call.id, "type": "function", "function": function}


def arguments_of(call: ToolCall) -> Json:
    try:
        arguments = orjson.loads(call.arguments or "{}")
        orjson.dumps(
            [[[[[[[[arguments]]]]]]]]
        )  # refuses what is too deep to be sent on, inside more
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return call.arguments
    return arguments if isinstance(arguments, dict) else call.arguments


# -- tools -----------------------------------------------------------------------------------------


def tools_of(tools: Sequence[Tool]) -> list[Json] | None:
    """The tools as templates read them, None without any."""
    return [tool_of(tool) for tool in tools] or None


def tool_of(tool: Tool) -> Json:
    function = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def without_tools(
    messages: Sequence[ChatMessage], tools: Sequence[Json] | None
) -> list[ChatMessage]:
    """The same conversation for a template that knows no tools: they, their calls and results as text.

    `tools` are as `tools_of` has them.
    """
    written = [tool_turn_as_text(message) for message in messages]
    if not tools:
        return written
    preamble = tool_preamble(tools)
    if written and written[0]["role"] == "system":
        system = {"role": "system", "content": f"{written[0]['content']}\n\n{preamble}"}
        return [system, *written[1:]]
    return [{"role": "system", "content": preamble}, *written]


def tool_preamble(tools: Sequence[Json]) -> str:
    schemas = "\n".join(dumps(tool["function"]) for tool in tools)
    return (
        "You can call functions. Each line between <tools> and </tools> describes one as JSON.\n"
        f"<tools>\n{schemas}\n</tools>\n"
        "To call a function, answer with its name and arguments as one JSON object in this form:\n"
        '<tool_call>\n{"name": "the function", "arguments": {"an argument": "its value"}}\n</tool_call>\n'
        "The result follows between <tool_response> and </tool_response>."
    )


def tool_turn_as_text(message: ChatMessage) -> ChatMessage:
    if message["role"] == "tool":
        text = f"<tool_response>\n{message['content']}\n</tool_response>"
        return {"role": "user", "content": text}
    if calls := message.get("tool_calls"):
        written = [f"<tool_call>\n{dumps(call['function'])}\n</tool_call>" for call in calls]
        text = "\n".join([message["content"], *written] if message["content"] else written)
        return {"role": message["role"], "content": text}
    return message


def dumps(value: Json) -> str:
    return orjson.dumps(value).decode()
