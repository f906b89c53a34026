"""Whether and how much the model thinks, and what else its template is told, in both directions.

There are as many names for this as there are servers.  What is told by name of the template alone
(`chat_template_kwargs`, the budgets) does not ask for reasoning to be shown, the rest does.
"""

from collections.abc import Iterator
from typing import TypeVar

from helexa.conversation import Json, Thinking
from helexa.wire.fields import Fields

MAX_EFFORT_CHARACTERS = 32
MAX_BUDGET_TOKENS = 2**53

# What a chat template gets from elsewhere and no client may replace.
RESERVED_KWARGS = frozenset(
    {
        "messages",
        "tools",
        "template",
        "chat_template",
        "conversation",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
    }
)
THINKING_KWARGS = ("enable_thinking", "reasoning_effort")
# As Alibaba has it, vLLM, and llama.cpp (twice).  -1 is no bound.
BUDGETS = (
    "thinking_budget",
    "thinking_token_budget",
    "thinking_budget_tokens",
    "reasoning_budget_tokens",
)

SAID_BY = frozenset(
    {
        "chat_template_kwargs",
        "enable_thinking",
        "reasoning",
        "reasoning_effort",
        "thinking",
        *BUDGETS,
    }
)

T = TypeVar("T")


def read_thinking(body: Fields) -> Thinking:
    if body.lacks(SAID_BY):
        return Thinking()
    own = body.object("chat_template_kwargs") or Fields({})
    reasoning = body.object("reasoning") or Fields({})  # as OpenRouter has it
    asked = first(read_effort(body, "reasoning_effort"), read_effort(reasoning, "effort"))
    budget = reasoning.integer("max_tokens", 1, MAX_BUDGET_TOKENS)
    of_type, its_budget = read_type(body)
    enabled = first(
        own.flag("enable_thinking"),
        body.flag("enable_thinking"),
        reasoning.flag("enabled"),
        of_type,
        None if asked is None else asked != "none",
        None if budget is None else True,
    )
    hidden = reasoning.flag("exclude")
    return Thinking(
        enabled,
        first(asked, read_effort(own, "reasoning_effort")),
        first(budget, its_budget, read_budget(body), read_budget(own)),
        shown=enabled is True if hidden is None else not hidden,
    )


def first(*found: T | None) -> T | None:
    return next((value for value in found if value is not None), None)


def read_effort(fields: Fields, key: str) -> str | None:
    return fields.text(key, MAX_EFFORT_CHARACTERS)


def read_budget(fields: Fields) -> int | None:
    found = first(*(fields.integer(name, -1, MAX_BUDGET_TOKENS) for name in BUDGETS))
    return None if found == -1 else found


def read_type(body: Fields) -> tuple[bool | None, int | None]:
    """`thinking`, as Anthropic, DeepSeek and Z.ai have it: whether, and its budget."""
    thinking = body.object("thinking")
    if thinking is None:
        return None, None
    match thinking.text("type"):
        case None:
            enabled = None
        case "enabled" | "adaptive" | "auto":
            enabled = True
        case "disabled":
            enabled = False
        case _:
            thinking.refuse("type", "must be enabled, adaptive or disabled")
    least = 0 if enabled is False else 1
    return enabled, thinking.integer("budget_tokens", least, MAX_BUDGET_TOKENS) or None


def read_template_kwargs(body: Fields) -> Iterator[tuple[str, Json]]:
    """What the template may read beside messages, tools and what `Thinking` holds."""
    for key, value in (body.json_object("chat_template_kwargs") or {}).items():
        if key in RESERVED_KWARGS:
            body.refuse("chat_template_kwargs", f"must not set `{key}`")
        if key not in THINKING_KWARGS:
            yield key, value


# -- the other direction -----------------------------------------------------------------------------


def write_thinking(thinking: Thinking, kwargs: tuple[tuple[str, Json], ...]) -> dict[str, Json]:
    """Only what differs from the defaults, in the names that most servers know."""
    own, written = dict(kwargs), dict[str, Json]()
    implied = None
    if thinking.effort is not None and thinking.enabled is not None:
        written["reasoning_effort"] = thinking.effort
        implied = thinking.effort != "none"
    elif thinking.effort is not None:
        own["reasoning_effort"] = thinking.effort
    if thinking.enabled != implied:
        own["enable_thinking"] = thinking.enabled
    if thinking.budget is not None:
        written["thinking_budget"] = thinking.budget
    if thinking.shown != (thinking.enabled is True):
        written["reasoning"] = {"exclude": not thinking.shown}
    return written | ({"chat_template_kwargs": own} if own else {})
