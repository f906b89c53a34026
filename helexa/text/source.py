"""What can be seen in the source of a chat template, without running it.  Pure."""

from typing import Literal

from attrs import frozen
from jinja2 import Environment, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from helexa.text.strict import Writing

MAX_SOURCE_CHARACTERS = 256 * 1024
THINKING_VARIABLES = frozenset({"enable_thinking", "thinking", "reasoning_effort"})
THINKING_MARKS = ("<think>", "reasoning_content")


@frozen
class Reads:
    """What a template makes of what it is given.

    `tools`: it says something of tools.  `thinking`: its model thinks before it speaks.  `parts`: it
    wants content as a list, and would take a text apart into letters.  `text_arguments`: it wants the
    arguments of calls as JSON text.  `short_ids`: it refuses calls whose ids have not nine letters and
    digits.  `function_ids`: it tells a call's function by an id as Kimi writes them, numbered through
    all or per turn.  `one_call`: it writes one call of a turn.  `thought_parts`: it has what was thought
    as a part of the content.  `writing`: it writes no calls, so that they must stand in what was said.
    """

    tools: bool
    thinking: bool
    parts: bool = False
    text_arguments: bool = False
    short_ids: bool = False
    function_ids: Literal["", "through", "per turn"] = ""
    one_call: bool = False
    thought_parts: bool = False
    writing: Writing | None = None


def reads_of(source: str) -> Reads:
    """Of a source that cannot be parsed, whether it has the words."""
    marked = any(mark in source for mark in THINKING_MARKS)
    try:
        tree = parse(source)
    except Exception:  # the source comes from outside and may make anything fail
        return Reads(
            "tools" in source, marked or any(name in source for name in THINKING_VARIABLES)
        )
    names = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
    return Reads(
        tools="tools" in names,
        thinking=marked or not names.isdisjoint(THINKING_VARIABLES),
        parts=wants_parts(tree),
        text_arguments=wants_text(tree),
        short_ids="length != 9" in source or "length < 9" in source,
        function_ids=ids_in(source),
        one_call=takes_one_call(tree),
        thought_parts=has_thought_parts(tree),
        writing=None if "tool_calls" in source else writing_of(source),
    )


def parse(source: str) -> nodes.Template:
    if len(source) > MAX_SOURCE_CHARACTERS:
        raise ValueError(f"the template has more than {MAX_SOURCE_CHARACTERS} characters")
    return Environment(extensions=[GenerationBlocks, loopcontrols]).parse(source)


class GenerationBlocks(Extension):
    """`{% generation %}` marks what the assistant said, for training; here it is just a block."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def ids_in(source: str) -> Literal["", "through", "per turn"]:
    if "<|tool_call_argument_begin|>" not in source:
        return ""
    return "per turn" if "loop.index0" in source else "through"


def writing_of(source: str) -> Writing:
    if "<|tool_list_start|>" in source:
        return "pythonic"
    return "list" if "<|tool_call|>" in source else "tagged"


# -- the form of values ------------------------------------------------------------------------------


def wants_parts(tree: nodes.Template) -> bool:
    """Whether it goes through the content of messages and never asks if that is a text."""
    content = Member("content", tree)
    is_tested = any(
        test.name == "string" and content.is_in(test.node) for test in tree.find_all(nodes.Test)
    )
    return not is_tested and any(content.is_in(loop.iter) for loop in tree.find_all(nodes.For))


def wants_text(tree: nodes.Template) -> bool:
    """Whether it writes the arguments of calls as they are: objects would look like Python's."""
    arguments = Member("arguments", tree)
    written = [item for output in tree.find_all(nodes.Output) for item in output.nodes]
    joined = [item for both in tree.find_all(nodes.Concat) for item in both.nodes]
    added = [item for both in tree.find_all(nodes.Add) for item in (both.left, both.right)]
    tested = [test.node for test in tree.find_all(nodes.Test)]
    filtered = [found.node for found in tree.find_all(nodes.Filter) if found.node is not None]
    called = [call.node for call in tree.find_all(nodes.Call)]
    looped = [loop.iter for loop in tree.find_all(nodes.For)]
    return any(map(arguments.is_bare, [*written, *joined, *added])) and not any(
        map(arguments.is_in, [*tested, *filtered, *called, *looped])
    )


def takes_one_call(tree: nodes.Template) -> bool:
    """Whether it looks at the first call of a turn and never goes through them."""
    calls = Member("tool_calls", tree)
    first = (item for item in tree.find_all(nodes.Getitem) if item.arg == nodes.Const(0))
    return any(calls.is_in(item.node) for item in first) and not any(
        calls.is_in(loop.iter) for loop in tree.find_all(nodes.For)
    )


def has_thought_parts(tree: nodes.Template) -> bool:
    """Whether it asks if the type of a part is "thinking"."""
    kind = Member("type", tree)
    return any(
        kind.is_in(asked.expr) and any(op.expr == nodes.Const("thinking") for op in asked.ops)
        for asked in tree.find_all(nodes.Compare)
    )


class Member:
    """A key of the values that a template is given: x.key, x["key"], x.get("key"), names set to it."""

    def __init__(self, key: str, tree: nodes.Template) -> None:
        self._key = key
        self._names = {
            assigned.target.name
            for assigned in tree.find_all(nodes.Assign)
            if isinstance(assigned.target, nodes.Name) and self._is_read(assigned.node)
        }

    def is_in(self, node: nodes.Node) -> bool:
        """The value, or what filters make of it, or it and what stands for it where there is none."""
        match node:
            case nodes.Filter(node=inner) if inner is not None:
                return self.is_in(inner)
            case nodes.Or(left=inner):
                return self.is_in(inner)
        return self.is_bare(node)

    def is_bare(self, node: nodes.Node) -> bool:
        return self._is_read(node) or (isinstance(node, nodes.Name) and node.name in self._names)

    def _is_read(self, node: nodes.Node) -> bool:
        match node:
            case nodes.Getattr(attr=key) | nodes.Getitem(arg=nodes.Const(value=key)):
                return bool(key == self._key)
            case nodes.Call(node=nodes.Getattr(attr="get"), args=[nodes.Const(value=key), *_]):
                return bool(key == self._key)
        return False
