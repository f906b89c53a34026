"""What a conversation demands of its answer, as a grammar in the model's own markup."""

import json
from collections.abc import Iterator

from attrs import evolve, frozen
from llguidance import regex_to_lark

from helexa.conversation import (
    Conversation,
    Format,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
)
from helexa.errors import InvalidRequest
from helexa.text.constraint import forms, harmony
from helexa.text.constraint.arguments import TOLD_APART, Offer
from helexa.text.constraint.bounds import MAX_BYTES, MAX_TEXT, check_schema, check_text
from helexa.text.constraint.compiler import Source
from helexa.text.constraint.matcher import Constraint
from helexa.text.constraint.rules import ANYTHING, NOTHING, Rules, either, sequence
from helexa.text.constraint.schema import any_arguments, json_by, parameters_of
from helexa.text.markup import Markup
from helexa.text.markup.reader import markers_of
from helexa.text.markup.thought import opens_thinking
from helexa.text.tokenizer import Tokenizer

SCHEMA = "response_format.json_schema.schema"
REGEX = "structured_outputs.regex"
GRAMMAR = "structured_outputs.grammar"
SPACE = r"/[ \n]{0,4}/"
NUL, ESCAPED_NUL = "\0", r"\x00"


def compile_constraint(
    tokenizer: Tokenizer, conversation: Conversation, prompt_text: str, markup: Markup
) -> Constraint | None:
    """The constraint of the answers, None if they are free.

    A worker thread's work: a tenth of a second and more for what was not compiled before, ten at most
    for a trial that is broken off.  InvalidRequest names the field, and the keyword that cannot be
    enforced.
    """
    demand = demand_of(conversation)
    if demand is None:
        return None
    compiler = tokenizer.compiler
    try:
        return compiler.compile(source_of(demand, tokenizer, prompt_text, markup))
    except InvalidRequest:
        if not demand.any_lenient:
            raise
    # Nobody asked for the schemas of tools that are not strict to be enforced.
    demand = demand.relaxed(keep_names=markup.tools in TOLD_APART)
    return compiler.compile(source_of(demand, tokenizer, prompt_text, markup))


@frozen
class Demand:
    """What an answer must be.

    `offers` are the tools that may be called and `params` the fields that they came in; `forced`:
    there must be a call, and nothing else, `many`: or more than one.  `format` None is free text.
    """

    format: Format | None
    offers: tuple[Offer, ...] = ()
    params: tuple[str, ...] = ()
    forced: bool = False
    many: bool = False

    @property
    def any_lenient(self) -> bool:
        return any(offer.lenient for offer in self.offers)

    def relaxed(self, *, keep_names: bool) -> "Demand":
        """The same without what nobody asked for: the schemas of tools that are not strict."""

        def free(offer: Offer) -> Offer:
            schema = any_arguments(offer.schema) if keep_names else {"type": "object"}
            return evolve(offer, schema=schema) if offer.lenient else offer

        return evolve(self, offers=tuple(map(free, self.offers)))


def demand_of(conversation: Conversation) -> Demand | None:
    """None if the answer may be any text."""
    choice = conversation.tool_choice
    chosen = []
    if choice.mode != "none":
        if missing := set(choice.only) - {tool.name for tool in conversation.tools}:
            raise InvalidRequest(f"there is no tool named {min(missing)!r}", param="tool_choice")
        chosen = [
            (i, tool)
            for i, tool in enumerate(conversation.tools)
            if not choice.only or tool.name in choice.only
        ]
    forced = choice.mode == "required"
    if forced and not chosen:
        raise InvalidRequest("a call is required, but there are no tools", param="tool_choice")
    # One call at most needs no rule of its own: its reader ends the answer after the first.
    held = forced or choice.only or any(tool.strict for _, tool in chosen)
    if not (chosen and held) and conversation.format is None:
        return None
    return Demand(
        None if forced else conversation.format,
        tuple(Offer(tool, parameters_of(tool.parameters), not tool.strict) for _, tool in chosen),
        tuple(f"tools[{i}].function.parameters" for i, _ in chosen),
        forced,
        choice.parallel and not (forced and len(choice.only) == 1),
    )


# -- the grammar ---------------------------------------------------------------------------------------


def source_of(demand: Demand, tokenizer: Tokenizer, prompt_text: str, markup: Markup) -> Source:
    """The whole grammar, and each schema alone.  InvalidRequest for what is too large."""
    check(demand)
    rules = Rules(tokenizer, markers_of(markup))
    whole = written(demand, rules, prompt_text, markup)
    grammar = library(whole, demand.format)
    if len(grammar) > MAX_BYTES:
        raise InvalidRequest(
            f"the schemas of this request have more than {MAX_BYTES // 1024} KiB together"
        )
    return Source(grammar, tuple(parts(demand, tokenizer, markup)))


def check(demand: Demand) -> None:
    for offer, param in zip(demand.offers, demand.params, strict=True):
        check_schema(offer.schema, param)
    match demand.format:
        case JsonSchema(schema=schema):
            check_schema(schema, SCHEMA)
        case Regex(pattern):
            check_text(pattern, MAX_TEXT, REGEX)
            if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
                raise InvalidRequest(f"{REGEX} ends in a single backslash", param=REGEX)
        case Grammar(lark):
            check_text(lark, MAX_TEXT, GRAMMAR)


def written(demand: Demand, rules: Rules, prompt_text: str, markup: Markup) -> str:
    answer = form_of(demand.format, compact=bool(demand.offers))
    if markup.tools == "harmony":
        return rules.text(in_channels(demand, rules, answer))
    if not demand.offers:
        said = answer
    elif demand.forced or demand.format:
        calls = forms.forced(rules, markup.tools, demand.offers, many=demand.many)
        said = calls if demand.forced else either([calls, answer])
    else:
        calls = forms.in_text(rules, markup.tools, demand.offers, many=demand.many)
        return rules.text(sequence([thought(rules, prompt_text, markup, required=True), calls]))
    return rules.text(sequence([thought(rules, prompt_text, markup), said]))


def in_channels(demand: Demand, rules: Rules, answer: str) -> str:
    calls = harmony.call(rules, demand.offers) if demand.offers else ""
    final = "" if demand.forced else harmony.said(rules, answer)
    return sequence([harmony.thoughts(rules), either(filter(None, [calls, final]))])


def thought(rules: Rules, prompt_text: str, markup: Markup, *, required: bool = False) -> str:
    """What the model thinks first: the rest of what the prompt began, or a thought of its own.

    Not the latter if `required`: where text is free, it needs no rule.
    """
    if markup.think is None:
        return ""
    opening, closing = markup.think
    if opens_thinking(markup, prompt_text):
        return sequence([rules.until(closing), SPACE])
    if required or prompt_text.rstrip().endswith(closing.rstrip()):
        return ""
    return f"({sequence([rules.spell(opening), rules.until(closing), SPACE])})?"


def form_of(format: Format | None, *, compact: bool = False) -> str:
    match format:
        case None:
            return ANYTHING
        case JsonObject():
            return json_by({"type": "object"}, compact=compact)
        case JsonSchema(schema=schema, strict=strict):
            return json_by(schema, lenient=strict is False, compact=compact)
        case Regex(pattern):
            lark = regex_to_lark(pattern.replace(NUL, ESCAPED_NUL), "")
            return f"/{lark}/" if lark else NOTHING
        case Grammar():
            return "@answer"


def library(grammar: str, format: Format | None) -> str:
    """The grammar, and beside it the one that the client wrote."""
    grammars = [{"lark_grammar": grammar}]
    if isinstance(format, Grammar):
        grammars.append({"name": "answer", "lark_grammar": format.lark})
    return json.dumps({"grammars": grammars})


def parts(demand: Demand, tokenizer: Tokenizer, markup: Markup) -> Iterator[tuple[str, str]]:
    for offer, param in zip(demand.offers, demand.params, strict=True):
        if not offer.lenient:
            rules = Rules(tokenizer, markers_of(markup))
            yield param, library(rules.text(forms.arguments(rules, markup.tools, offer)), None)
    if demand.format is not None:
        yield param_of(demand.format), library(f"start: {form_of(demand.format)}", demand.format)


def param_of(format: Format) -> str:
    match format:
        case JsonSchema():
            return SCHEMA
        case Regex():
            return REGEX
        case Grammar():
            return GRAMMAR
        case JsonObject():
            return "response_format"
