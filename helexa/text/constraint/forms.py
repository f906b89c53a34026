"""How each format writes its calls, as parts of a grammar."""

from attrs import frozen

from helexa.text.constraint.arguments import Offer, elements, keywords, pairs
from helexa.text.constraint.rules import (
    ANYTHING,
    Rules,
    either,
    pattern_of,
    quote,
    sequence,
)
from helexa.text.constraint.schema import json_by
from helexa.text.markup import ToolFormat

NAME, INDEX = "{name}", "{index}"
MOST_CALLS = 4  # in one answer: a small model that may go on repeats itself


@frozen
class Form:
    """One format: `opener` and `begin`, then calls with `between` between them, then `end`.

    `before` and `after` are what stands around the arguments of a call; each text of `before` is a
    word of its own to the lexer.  `opener` is what a call is known by in free text.  Where it is "",
    a call is known by `first`, the character that an answer in free text then may not begin with.
    """

    before: tuple[str, ...]
    after: str = ""
    opener: str = ""
    begin: str = ""
    between: str = ""
    end: str = ""
    first: str = ""


FORMS: dict[ToolFormat, Form] = {
    "hermes": Form(
        opener="<tool_call>",
        before=('\n{"name": "{name}", "arguments": ',),
        after="}\n</tool_call>",
        between="\n<tool_call>",
        first="{",
    ),
    "qwen_xml": Form(
        opener="<tool_call>",
        before=("\n<function={name}>\n",),
        after="</function>\n</tool_call>",
        between="\n<tool_call>",
    ),
    "llama_json": Form(
        before=("{", '"name"', ": ", '"{name}"', ", ", '"parameters"', ": "),
        after="}",
        between="; ",
        first="{",
    ),
    "pythonic": Form(
        begin="[", before=("{name}", "("), after=")", between=", ", end="]", first="["
    ),
    "mistral": Form(
        opener="[TOOL_CALLS]",
        begin="[",
        before=('{"name": "{name}", "arguments": ',),
        after="}",
        between=", ",
        end="]",
    ),
    "deepseek_v3": Form(
        opener="<｜tool▁calls▁begin｜>",
        before=("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n",),
        after="\n```<｜tool▁call▁end｜>",
        between="\n",
        end="<｜tool▁calls▁end｜>",
    ),
    "deepseek_v31": Form(
        opener="<｜tool▁calls▁begin｜>",
        before=("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>",),
        after="<｜tool▁call▁end｜>",
        end="<｜tool▁calls▁end｜>",
    ),
    "glm": Form(
        opener="<tool_call>",
        before=("{name}\n",),
        after="</tool_call>",
        between="\n<tool_call>",
    ),
    "kimi": Form(
        opener="<|tool_calls_section_begin|>",
        before=(
            "<|tool_call_begin|>",
            "functions.{name}:",
            INDEX,
            "<|tool_call_argument_begin|>",
        ),
        after="<|tool_call_end|>",
        end="<|tool_calls_section_end|>",
    ),
}
# Mistral's later form, of models that have a token for it.
NAMED_MISTRAL = Form(opener="[TOOL_CALLS]", before=("{name}", "[ARGS]"), between="[TOOL_CALLS]")


def forced(rules: Rules, format: ToolFormat, offers: tuple[Offer, ...], *, many: bool) -> str:
    """A call, or up to MOST_CALLS of them, and nothing else."""
    form = form_of(format, rules)
    return sequence([rules.spell(form.opener), body(rules, format, form, offers, many=many)])


def in_text(rules: Rules, format: ToolFormat, offers: tuple[Offer, ...], *, many: bool) -> str:
    """Free text, in which calls may stand; a call is held to its form once it has begun."""
    form = form_of(format, rules)
    calls = rules.add(body(rules, format, form, offers, many=many))
    text = ANYTHING if not form.first else f"/(\\s*[^{pattern_of(form.first)}\\s](?s:.*))?/"
    if not form.opener:
        return either([calls, text])
    head = rules.until(form.opener)
    return f"({head} {calls})* {text}" if many else either([f"{head} {calls}", text])


def form_of(format: ToolFormat, rules: Rules) -> Form:
    if format == "mistral" and rules.tokenizer.token_id("[ARGS]") is not None:
        return NAMED_MISTRAL
    return FORMS[format]


def body(
    rules: Rules, format: ToolFormat, form: Form, offers: tuple[Offer, ...], *, many: bool
) -> str:
    """All after the opener."""
    call = rules.add(either(one_call(rules, format, form, offer) for offer in offers))
    more = f"({rules.spell(form.between)} {call}){{0,{MOST_CALLS - 1}}}" if many else ""
    return sequence([rules.spell(form.begin), call, more, rules.spell(form.end)])


def one_call(rules: Rules, format: ToolFormat, form: Form, offer: Offer) -> str:
    words = (word_of(rules, word, offer.tool.name) for word in form.before)
    return sequence([*words, arguments(rules, format, offer), rules.spell(form.after)])


def word_of(rules: Rules, word: str, name: str) -> str:
    if word == INDEX:
        return "/[0-9]{1,2}/"
    if '"' in word:  # the name stands in JSON
        name = quote(name)[1:-1]
    return rules.spell(word.replace(NAME, name))


def arguments(rules: Rules, format: ToolFormat, offer: Offer) -> str:
    match format:
        case "qwen_xml":
            return elements(rules, offer)
        case "glm":
            return pairs(rules, offer)
        case "pythonic":
            return keywords(rules, offer)
        case _:
            return json_by(offer.schema, lenient=offer.lenient)
