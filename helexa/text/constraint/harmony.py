"""gpt-oss writes all that it says as messages on channels, also its thoughts and calls."""

from helexa.text.constraint.arguments import Offer
from helexa.text.constraint.rules import ANYTHING, Rules, either, sequence
from helexa.text.constraint.schema import json_by

MESSAGE = "<|message|>"
THOUGHT = "<|channel|>analysis<|message|>"
ASIDE = "<|channel|>commentary<|message|>"
ANSWER = "<|channel|>final<|message|>"
MOST_THOUGHTS = 8
NEXT = "<|end|><|start|>assistant"


def said(rules: Rules, form: str) -> str:
    """The answer proper, in `form`."""
    return sequence([rules.spell(ANSWER), form])


def thoughts(rules: Rules) -> str:
    """What may come before: messages that are not the answer."""
    heads = either(map(rules.spell, (THOUGHT, ASIDE)))
    return f"({heads} {ANYTHING} {rules.spell(NEXT)}){{0,{MOST_THOUGHTS}}}"


def call(rules: Rules, offers: tuple[Offer, ...]) -> str:
    """One call: the answer ends with it."""
    return either(one_call(rules, offer) for offer in offers)


def one_call(rules: Rules, offer: Offer) -> str:
    head = f"<|channel|>commentary to=functions.{offer.tool.name} <|constrain|>json<|message|>"
    arguments = json_by(offer.schema, lenient=offer.lenient)
    return sequence([rules.spell(head), arguments, rules.spell("<|call|>")])
