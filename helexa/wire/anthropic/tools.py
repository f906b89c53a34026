"""The tools of a Messages request, and which of them may or must be called."""

from collections.abc import Iterator, Sequence

from helexa.conversation import Tool, ToolChoice
from helexa.wire.anthropic.blocks import Note
from helexa.wire.anthropic.known_tools import known_tool
from helexa.wire.fields import Fields
from helexa.wire.request import MAX_NAME_CHARACTERS, MAX_TOOLS, MAX_TOOLS_BYTES, read_tool_name


def read_tools(body: Fields) -> Iterator[Tool | Note]:
    for tool in body.objects("tools", MAX_TOOLS) or ():
        yield read_tool(tool)
    body.bound("tools", MAX_TOOLS_BYTES)


def read_tool(tool: Fields) -> Tool | Note:
    """A function by its schema; a tool that Anthropic knows by its type alone, where its client runs it."""
    kind = tool.text("type")
    if kind == "function":
        tool.refuse("type", "must be left out: here a tool is its name and its input_schema")
    if kind is None or kind == "custom" or tool.has("input_schema"):
        return read_function(tool)
    name = tool.text("name", MAX_NAME_CHARACTERS)
    return known_tool(kind, name) or Note(f"{tool.path}: a tool of type {kind[:40]} was skipped")


def read_function(tool: Fields) -> Tool:
    name = read_tool_name(tool)
    schema = tool.json_object("input_schema")
    if schema is None:
        tool.refuse("input_schema", "is required and must be a JSON schema")
    return Tool(name, tool.text("description"), schema, tool.flag("strict") or False)


def read_tool_choice(body: Fields, tools: Sequence[Tool]) -> ToolChoice:
    choice = body.object("tool_choice")
    if choice is None:
        return ToolChoice()
    parallel = not choice.flag("disable_parallel_tool_use")
    match choice.required_text("type"):
        case "auto":
            return ToolChoice("auto", parallel=parallel)
        case "none":
            return ToolChoice("none")
        case "any":
            if not tools:
                choice.refuse("type", "must not be any: no tool is offered that can run here")
            return ToolChoice("required", parallel=parallel)
        case "tool":
            name = choice.required_text("name")
            if name not in {tool.name for tool in tools}:
                choice.refuse("name", "must be the name of a tool that is offered and can run here")
            return ToolChoice("required", (name,), parallel)
        case _:
            choice.refuse("type", "must be one of auto, any, tool, none")
