"""Jinja for chat templates that come from outside: nothing but text comes out, and only so much.

The language is the one that transformers gives to chat templates: an immutable sandbox with trimmed
blocks, loop controls, `tojson`, `strftime_now`, `raise_exception` and `{% generation %}`.  Beyond that
a rendering has a deadline and a largest size, which one in transformers has not.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import wraps
from types import CodeType
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_SOURCE_CHARACTERS = 1024 * 1024
MAX_SECONDS = 10.0
MAX_NUMBER = 10_000  # as an argument: of `center`, `indent`, `batch` and the like
MAX_BITS = 4096  # of an integer that a template computes
WIDE_FORMAT = re.compile(r"\d{5}|%[^a-zA-Z%]*\*")  # a width that would blow a little text up
NESTED_FIELD = re.compile(r"\{[^}]*\{")  # a width that is an argument of `format`
UNFIT_METHODS = frozenset({"expandtabs", "translate"})  # of strings: they multiply their input
UNFIT_FILTERS = frozenset({"filesizeformat", "pprint", "random", "urlize", "wordwrap", "xmlattr"})


class Program:
    """A compiled template.  Immutable, so that any number of threads may render it at once.

    Raises a jinja2 TemplateError, or whatever else Python makes of a hostile source.
    """

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise TemplateError(f"the template has more than {MAX_SOURCE_CHARACTERS} characters")
        environment = Sandbox(max_size=MAX_SOURCE_CHARACTERS, max_seconds=MAX_SECONDS)
        tree = environment.parse(source)
        self.variables = frozenset(find_undeclared_variables(tree))
        Guards().visit(tree).set_environment(environment)
        self._code: CodeType = environment.compile(tree, filename="<chat template>")

    def render(
        self, variables: Mapping[str, Any], *, max_size: int, max_seconds: float = MAX_SECONDS
    ) -> str:
        """The text; TemplateError when it would have more than `max_size` characters, or takes too long."""
        environment = Sandbox(max_size, max_seconds)
        template = Template.from_code(environment, self._code, environment.make_globals(None))
        return template.render(variables)


class Guards(NodeTransformer):
    """Puts into a parsed template the calls by which the sandbox sees loops, macros and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._guarded(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._guarded(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._guarded(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return call("join_all", node.nodes).set_lineno(node.lineno)

    def _guarded(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(call("tick", [])).set_lineno(node.lineno))
        return node


def call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    """A call of one of the sandbox's own methods."""
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


class GenerationBlocks(Extension):
    """`{% generation %}` marks what the assistant said, for training; here it is just a block."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one rendering, made anew for each: what it counts concerns no other thread."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, max_size: int, max_seconds: float) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, loopcontrols]
        )
        self._max_size = max_size
        self._deadline = time.monotonic() + max_seconds
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]
        self.globals |= {
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
            "namespace": PlainNamespace,
        }
        self.filters["tojson"] = tojson
        self.filters = {
            name: self._bounded(name, function)
            for name, function in self.filters.items()
            if name not in UNFIT_FILTERS
        }

    # -- what the guards and the compiled code call ------------------------------------------------

    def tick(self) -> None:
        """A turn of a loop, or of a macro: counted in `call`."""

    def join_all(self, *parts: Any) -> str:
        return self.concat(map(str, parts))

    def concat(self, pieces: Iterable[str]) -> str:
        """All text that a template puts together comes through here, the whole output last."""
        kept, size = [], 0
        for piece in pieces:
            size += len(piece)
            self._check_size(size)
            kept.append(piece)
        return "".join(kept)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self._check_time()
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str):
            args = listed(args)
            __self._check_arguments(__obj.__name__, (text, *args), kwargs)
        return __self._measured(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._check_time()
        match operator:
            case "+":
                self._check_size(size_of(left) + size_of(right))
            case "*":
                self._check_product(left, right)
            case "**":
                self._check_power(left, right)
            case "%" if isinstance(left, str):
                refuse_wide_format(left)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in UNFIT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            refuse_wide_format(value.__self__)
            if NESTED_FIELD.search(value.__self__.replace("{{", "")):
                raise SecurityError("the template computes a format")
        return wrapped

    # -- bounds ----------------------------------------------------------------------------------

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context that some are given

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._check_time()
            if name == "join":
                args = listed(args)
            self._check_arguments(name, args[skipped:], kwargs)
            return self._measured(function(*args, **kwargs))

        return bounded

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise SecurityError("the template takes too long")

    def _check_size(self, size: int) -> None:
        if size > self._max_size:
            raise SecurityError(f"the template makes more than {self._max_size} characters")

    def _measured(self, value: Any) -> Any:
        self._check_size(size_of(value))
        return value

    def _check_product(self, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            refuse_long_integer(left.bit_length() + right.bit_length())
        elif isinstance(left, int):
            self._check_size(left * size_of(right))
        elif isinstance(right, int):
            self._check_size(size_of(left) * right)

    def _check_power(self, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            refuse_long_integer(left.bit_length() * abs(right))

    def _check_arguments(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse a call of a filter or string method whose result would be out of proportion."""
        for value in (*args[1:], *kwargs.values()):
            if isinstance(value, int) and abs(value) > MAX_NUMBER:
                raise SecurityError(f"{name} with {value} is out of proportion")
        given = [*args, *kwargs.values()]
        text = given[0] if given else None
        match name:
            case "replace" if isinstance(text, str) and len(given) > 2:
                self._check_size(len(text) + text.count(str(given[1])) * size_of(given[2]))
            case "join" if isinstance(text, str):
                self._check_joined(given[1] if len(given) > 1 else (), text)
            case "join":
                self._check_joined(text, str(given[1]) if len(given) > 1 else "")
            case "indent" if isinstance(text, str):
                width = given[1] if len(given) > 1 else 4
                width = width if isinstance(width, int) else size_of(width)
                self._check_size(len(text) + (text.count("\n") + 1) * width)
            case "format" if isinstance(text, str):
                refuse_wide_format(text)

    def _check_joined(self, items: Any, separator: str) -> None:
        if isinstance(items, Sequence | Mapping):
            self._check_size(sum(map(size_of, items)) + len(items) * len(separator))


def listed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Generators as lists, so that their size can be told before they are used."""
    return tuple(list(value) if isinstance(value, Iterator) else value for value in args)


def size_of(value: Any) -> int:
    """Characters of a text, entries of a list or mapping; 0 of anything else."""
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def refuse_wide_format(text: str) -> None:
    if WIDE_FORMAT.search(text):
        raise SecurityError("the template formats to a width that is out of proportion")


def refuse_long_integer(bits: int) -> None:
    if bits > MAX_BITS:
        raise SecurityError("the template computes an integer that is out of proportion")


# -- what templates may call ------------------------------------------------------------------------


class PlainNamespace(Namespace):
    """Jinja's namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            refuse_private(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        refuse_private(name)
        super().__setitem__(name, value)


def refuse_private(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


def raise_exception(message: str) -> None:
    raise TemplateError(message)


def strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter would escape what HTML cares about."""
    if isinstance(indent, int) and indent > 16:
        raise SecurityError("tojson with such an indent is out of proportion")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
