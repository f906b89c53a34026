"""Whether tools must be called, and which of them, in both directions."""

from helexa.conversation import Json, ToolChoice
from helexa.wire.fields import Fields
from helexa.wire.openai_responses.tools import Kind, Origin, Toolbox, definition
from helexa.wire.request import MAX_TOOLS, read_tool_name

Choice = tuple[ToolChoice, tuple[str, ...]]  # with notes on what of it cannot be followed


def read_tool_choice(body: Fields, toolbox: Toolbox) -> Choice:
    parallel = body.flag("parallel_tool_calls") is not False
    choice = body.get("tool_choice")
    match choice:
        case None | "auto" | "none":
            return ToolChoice(choice or "auto", parallel=parallel), ()
        case "required":
            return require((), body, toolbox, parallel)
        case dict():
            return read_specific(body.required_object("tool_choice"), body, toolbox, parallel)
        case _:
            body.refuse("tool_choice", "must be auto, none, required or an object")


def require(only: tuple[str, ...], body: Fields, toolbox: Toolbox, parallel: bool) -> Choice:
    if toolbox.tools:
        return ToolChoice("required", only, parallel), ()
    if not body.get("tools"):
        body.refuse("tool_choice", "needs `tools` to choose from")
    return ToolChoice("auto", (), parallel), ("tool_choice: none of the tools can be called",)


def read_specific(choice: Fields, body: Fields, toolbox: Toolbox, parallel: bool) -> Choice:
    match choice.required_text("type"):
        case "function" | "custom":
            return require((read_named(choice, toolbox),), body, toolbox, parallel)
        case "allowed_tools":
            return read_allowed(choice, toolbox, parallel)
        case kind:
            return ToolChoice("auto", (), parallel), (
                f"tool_choice: a tool of type {kind[:40]} was skipped",
            )


def read_named(choice: Fields, toolbox: Toolbox) -> str:
    kind: Kind = "custom" if choice.get("type") == "custom" else "function"
    named = definition(choice)
    origin = Origin(kind, read_tool_name(named), named.text("namespace"))
    if origin not in toolbox.names:
        named.refuse("name", "must be the name of one of the `tools`")
    return toolbox.names[origin]


def read_allowed(choice: Fields, toolbox: Toolbox, parallel: bool) -> Choice:
    mode = choice.text("mode") or "auto"
    if mode not in ("auto", "required"):
        choice.refuse("mode", "must be auto or required")
    only, notes = [], []
    for tool in choice.objects("tools", MAX_TOOLS) or ():
        kind = tool.required_text("type")
        if kind in ("function", "custom"):
            only.append(read_named(tool, toolbox))
        else:
            notes.append(f"{tool.path}: a tool of type {kind[:40]} was skipped")
    if not only:
        return ToolChoice("none", (), parallel), (*notes, "tool_choice: no allowed tool is left")
    allowed = tuple(dict.fromkeys(only))
    return ToolChoice("required" if mode == "required" else "auto", allowed, parallel), tuple(notes)


# -- the other direction -----------------------------------------------------------------------------


def write_tool_choice(choice: ToolChoice) -> Json:
    if not choice.only:
        return choice.mode
    if choice.mode == "required" and len(choice.only) == 1:
        return {"type": "function", "name": choice.only[0]}
    tools = [{"type": "function", "name": name} for name in choice.only]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
