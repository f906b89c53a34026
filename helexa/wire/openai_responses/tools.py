"""The tools of a request: functions, custom tools and namespaces of both become functions.

A model knows one kind of tool, a function with a name.  `Toolbox` remembers what each name stood for,
so that a call is told to the client as a call of the tool that it sent.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, count
from typing import Literal

from attrs import field, frozen

from helexa.conversation import Json, Tool
from helexa.wire.fields import Fields
from helexa.wire.request import (
    FREE_TEXT,
    MAX_TOOLS,
    MAX_TOOLS_BYTES,
    NO_PARAMETERS,
    read_tool_name,
)

Kind = Literal["function", "custom"]


@frozen
class Origin:
    """A tool as its client knows it."""

    kind: Kind
    name: str
    namespace: str | None = None

    @property
    def flat_name(self) -> str:
        return self.name if self.namespace is None else f"{self.namespace}__{self.name}"


@frozen
class Toolbox:
    """`tools` as the model sees them, and the `names` under which it knows those of the client."""

    tools: tuple[Tool, ...] = ()
    names: dict[Origin, str] = field(factory=dict)
    origins: dict[str, Origin] = field(factory=dict)  # the other way round
    notes: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()  # the paths of those of the tools

    def origin(self, name: str) -> Origin:
        return self.origins.get(name) or Origin("function", name)

    def name(self, origin: Origin) -> str:
        """Also of a tool that is not offered any more."""
        return self.names.get(origin, origin.flat_name)


# -- tools -------------------------------------------------------------------------------------------


def read_toolbox(body: Fields) -> Toolbox:
    found: list[tuple[Origin, Fields, str | None]] = []
    notes: list[str] = []
    for tool in body.objects("tools", MAX_TOOLS) or ():
        match tool.required_text("type"):
            case "function" | "custom":
                found.append((read_origin(tool), tool, None))
            case "namespace":
                found.extend(read_namespace(tool, notes))
            case kind:
                notes.append(f"{tool.path}: a tool of type {kind[:40]} was skipped")
    if len(found) > MAX_TOOLS:
        body.refuse("tools", f"must have at most {MAX_TOOLS} tools in all, not {len(found)}")
    names = give_names(origin for origin, _, _ in found)
    tools = [read_tool(names[origin], origin.kind, tool, about) for origin, tool, about in found]
    body.bound("tools", MAX_TOOLS_BYTES)
    origins = {name: origin for origin, name in names.items()}
    schemas = tuple(definition(tool).at("parameters") for _, tool, _ in found)
    return Toolbox(tuple(tools), names, origins, tuple(notes), schemas)


def read_namespace(
    namespace: Fields, notes: list[str]
) -> Iterator[tuple[Origin, Fields, str | None]]:
    """Its tools; the first of them is told what the namespace is for."""
    name = read_tool_name(namespace)
    about = namespace.text("description")
    preface = f"[{name}] {about}" if about else None
    for tool in namespace.objects("tools", MAX_TOOLS) or ():
        kind = tool.required_text("type")
        if kind in ("function", "custom"):
            yield read_origin(tool, name), tool, preface
            preface = None
        else:
            notes.append(f"{tool.path}: a tool of type {kind[:40]} was skipped")


def read_origin(tool: Fields, namespace: str | None = None) -> Origin:
    kind: Kind = "custom" if tool.get("type") == "custom" else "function"
    return Origin(kind, read_tool_name(definition(tool)), namespace)


def definition(tool: Fields) -> Fields:
    """Where a tool is defined: in itself, or below `function` as chat completions have it."""
    return tool.object("function") or tool


def give_names(origins: Iterable[Origin]) -> dict[Origin, str]:
    """A name of its own for each; a tool outside of namespaces keeps the one it has if it can."""
    names: dict[Origin, str] = {}
    taken: set[str] = set()
    for origin in sorted(origins, key=lambda origin: origin.namespace is not None):
        if origin in names:
            continue
        candidates = chain([origin.flat_name], (f"{origin.flat_name}_{n}" for n in count(2)))
        names[origin] = next(name for name in candidates if name not in taken)
        taken.add(names[origin])
    return names


def read_tool(name: str, kind: Kind, tool: Fields, preface: str | None) -> Tool:
    tool = definition(tool)
    about = [preface, tool.text("description")]
    if kind == "custom":
        about.append(read_input_format(tool))
        parameters: Json = FREE_TEXT
    else:
        given = tool.json_object("parameters")
        parameters = NO_PARAMETERS if given is None else given
    told = [text for text in about if text is not None]
    strict = tool.flag("strict") or False
    return Tool(name, "\n\n".join(told) if told else None, parameters, strict)


def read_input_format(tool: Fields) -> str | None:
    """In words what the input of a custom tool must look like; it is told to the model, not enforced."""
    form = tool.object("format")
    if form is None or form.text("type") in (None, "text"):
        return None
    if form.text("type") != "grammar":
        form.refuse("type", "must be text or grammar")
    grammar = form.object("grammar") or form
    syntax, text = grammar.required_text("syntax"), grammar.required_text("definition")
    return f"The input must follow this grammar ({syntax}):\n{text}"


# -- the other direction -----------------------------------------------------------------------------


def write_tool(tool: Tool) -> Json:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
