"""What clients read out of the words of an error: none of ours says by accident what it does not mean."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import helexa
from helexa.fleet.known import too_long
from helexa.fleet.limits import Limit
from helexa.wire.envelope import anthropic_message

# What makes opencode, LiteLLM, Codex, Claude Code and others take an error for a prompt that is too
# long, and compact the conversation.
OVERFLOW = re.compile(
    r"maximum context length|context window|prompt is too long|available context size"
    r"|too many tokens|token limit exceeded|request_too_large|too many images"
    r"|exceeds the limit of \d|exceed context limit|maximum context limit"
    r"|longer than the model's context length|tokens exceed the configured limit"
    r"|context[ _]length[ _]exceeded|maximum prompt length|input is too long",
    re.IGNORECASE,
)
# What makes them wait and try again.
RATE_LIMIT = re.compile(r"\b429\b|rate[\s_-]*limit|too many requests", re.IGNORECASE)

SOURCES = sorted(Path(helexa.__file__).parent.rglob("*.py"))
MEANT = ("ContextLengthExceeded", "anthropic_message")  # the call, the function


def sentences(node: ast.AST) -> Iterator[str]:
    """Every string with a space in it but docstrings; what is filled in stands there as a number."""
    for child in ast.iter_child_nodes(node):
        if is_docstring(node, child) or name_of(child) in MEANT:
            continue
        text = text_of(child)
        if text is None:
            yield from sentences(child)
        elif " " in text:
            yield text


def text_of(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(text_of(part) or "7" for part in parts)
        case _:
            return None


def is_docstring(node: ast.AST, child: ast.AST) -> bool:
    return (
        isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(child, ast.Expr)
        and isinstance(child.value, ast.Constant)
    )


def name_of(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(name)):
            return name
        case ast.FunctionDef(name=name):
            return name
        case _:
            return ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_sentence_is_taken_for_what_it_does_not_say(path: Path) -> None:
    for sentence in sentences(ast.parse(path.read_text())):
        assert not OVERFLOW.search(sentence)
        assert not RATE_LIMIT.search(sentence)


@pytest.mark.parametrize("at_least", [False, True])
def test_a_prompt_that_is_too_long_is_told_so_that_clients_compact(at_least: bool) -> None:
    error = too_long(Limit(32768, 24576, 8192), 30000, at_least=at_least)
    assert "This model's maximum context length is 32768 tokens" in error.message
    assert not RATE_LIMIT.search(error.message)
    assert anthropic_message(error) == "prompt is too long: 30000 tokens > 24576 maximum"


def test_the_reader_of_sentences_reads_them() -> None:
    found = list(sentences(ast.parse('"""Doc 429."""\ndef f(n):\n    raise E(f"limit of {n}")\n')))
    assert found == ["limit of 7"]
