"""The tools of a chat request and whether they must be called, in both directions."""

from collections.abc import Iterable, Iterator

from attrs import frozen

from helexa.conversation import Json, Tool, ToolChoice
from helexa.wire.fields import Fields
from helexa.wire.request import (
    FREE_TEXT,
    MAX_TOOLS,
    MAX_TOOLS_BYTES,
    NO_PARAMETERS,
    read_tool_name,
)


@frozen
class Offered:
    """What the request says of tools.  `schemas` are the paths of theirs.  `legacy`: it says so in the
    form that came before tools, so that its client expects calls in that form."""

    tools: tuple[Tool, ...]
    choice: ToolChoice
    schemas: tuple[str, ...]
    notes: tuple[str, ...] = ()
    legacy: bool = False


def read_tools(body: Fields) -> Offered:
    if body.has("functions") and not body.has("tools"):
        return read_functions(body)
    tools: list[Tool] = []
    schemas: list[str] = []
    notes: list[str] = []
    for tool in body.objects("tools", MAX_TOOLS) or ():
        match tool.text("type"):
            case "function" | None:
                function = tool.required_object("function")
                tools.append(read_function(function))
                schemas.append(function.at("parameters"))
            case "custom":
                tools.append(read_custom(tool.required_object("custom")))
                schemas.append(tool.path)
            case kind:
                notes.append(f"{tool.path}: a tool of type {kind[:40]} was skipped")
    body.bound("tools", MAX_TOOLS_BYTES)
    return Offered(tuple(tools), read_choice(body, tools), tuple(schemas), tuple(notes))


def read_function(function: Fields) -> Tool:
    parameters = function.json_object("parameters")
    return Tool(
        read_tool_name(function),
        function.text("description"),
        NO_PARAMETERS if parameters is None else parameters,
        function.flag("strict") or False,
    )


def read_custom(custom: Fields) -> Tool:
    return Tool(read_tool_name(custom), custom.text("description"), FREE_TEXT)


# -- whether they must be called -----------------------------------------------------------------------


def read_choice(body: Fields, tools: Iterable[Tool]) -> ToolChoice:
    offered = {tool.name for tool in tools}
    parallel = body.flag("parallel_tool_calls") is not False
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return read_named(Fields(choice, "tool_choice"), offered, parallel)
    match choice:
        case None | "auto":
            return ToolChoice(parallel=parallel)
        case "none":
            return ToolChoice("none", parallel=parallel)
        case "required" | "any" if offered:
            return ToolChoice("required", parallel=parallel)
        case "required" | "any":
            body.refuse(
                "tool_choice", "must not be required: no tool is offered that can be called"
            )
        case _:
            body.refuse(
                "tool_choice", "must be auto, none, required, or an object that names a tool"
            )


def read_named(choice: Fields, offered: set[str], parallel: bool) -> ToolChoice:
    match choice.text("type"):
        case "function" | "custom" as kind:
            name = read_offered(choice.required_object(kind), offered)
            return ToolChoice("required", (name,), parallel)
        case "allowed_tools":
            allowed = choice.required_object("allowed_tools")
            names = tuple(dict.fromkeys(read_allowed(allowed, offered)))
            match allowed.text("mode"):
                case "auto" | None:
                    return ToolChoice("auto", names, parallel)
                case "required":
                    return ToolChoice("required", names, parallel)
                case _:
                    allowed.refuse("mode", "must be auto or required")
        case _:
            choice.refuse("type", "must be function, custom or allowed_tools")


def read_allowed(allowed: Fields, offered: set[str]) -> Iterator[str]:
    tools = allowed.objects("tools", MAX_TOOLS)
    if not tools:
        allowed.refuse("tools", "is required and must name at least one tool")
    for tool in tools:
        match tool.text("type"):
            case "function" | "custom" as kind:
                yield read_offered(tool.required_object(kind), offered)
            case _:
                tool.refuse("type", "must be function or custom: no other tool can be called")


def read_offered(named: Fields, offered: set[str]) -> str:
    name = read_tool_name(named)
    if name not in offered:
        named.refuse("name", "must be the name of one of the tools of the request")
    return name


# -- the form before tools -----------------------------------------------------------------------------


def read_functions(body: Fields) -> Offered:
    """`functions` and `function_call`: one call at most."""
    functions = body.objects("functions", MAX_TOOLS) or ()
    tools = tuple(map(read_function, functions))
    schemas = tuple(function.at("parameters") for function in functions)
    body.bound("functions", MAX_TOOLS_BYTES)
    choice = body.get("function_call")
    match choice:
        case None | "auto":
            found = ToolChoice(parallel=False)
        case "none":
            found = ToolChoice("none", parallel=False)
        case dict():
            named = Fields(choice, "function_call")
            name = read_offered(named, {tool.name for tool in tools})
            found = ToolChoice("required", (name,), parallel=False)
        case _:
            body.refuse("function_call", "must be auto, none, or an object that names a function")
    return Offered(tools, found, schemas, legacy=True)


# -- the other direction -----------------------------------------------------------------------------


def write_tools(tools: tuple[Tool, ...], choice: ToolChoice) -> dict[str, Json]:
    """Only what differs from the defaults."""
    written: dict[str, Json] = {}
    if tools:
        written["tools"] = [write_tool(tool) for tool in tools]
    if choice != ToolChoice(parallel=choice.parallel):
        written["tool_choice"] = write_choice(choice)
    if not choice.parallel:
        written["parallel_tool_calls"] = False
    return written


def write_tool(tool: Tool) -> Json:
    function: dict[str, Json] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def write_choice(choice: ToolChoice) -> Json:
    match choice:
        case ToolChoice("none") | ToolChoice(only=()):
            return choice.mode
        case ToolChoice("required", (name,)):
            return name_tool(name)
        case _:
            named = [name_tool(name) for name in choice.only]
            return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}


def name_tool(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}
