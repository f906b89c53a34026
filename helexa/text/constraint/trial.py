"""Trying grammars in a child process first.

llguidance keeps to its limits and answers a panic with an error, but a chain of a few thousand rules
overflows its stack, which ends the process, and some schemas keep it busy for hours.  The child has a
smaller stack than our threads and is killed when it takes too long.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import llguidance
from attrs import frozen

from helexa.escape import escape

SECONDS = 10.0
# Fuel is some work of the lexer: about 50 000 a millisecond when a grammar is compiled, 14 000 when a
# step is taken.
LIMITS = {
    "initial_lexer_fuel": 2_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 10_000,
    "max_lexer_states": 50_000,
    "verbose_errors": False,
}
MAX_REASON_CHARACTERS = 300

Reason = str  # why a grammar is refused, as a clause; "" if it is not


@frozen
class Vocabulary:
    """`end` is the number of ids; `special` the tokens that a grammar may name."""

    end: int
    special: dict[int, str]


def limits() -> llguidance.LLParserLimits:
    return llguidance.LLParserLimits(**LIMITS)


def attempt(grammars: Sequence[str], vocabulary: Vocabulary) -> list[Reason]:
    """Why each of `grammars` is refused, up to the first that cannot be tried to its end."""
    order = {
        "end": vocabulary.end,
        "special": vocabulary.special,
        "limits": LIMITS,
        "grammars": list(grammars),
    }
    with subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("probe.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        try:
            told, _ = child.communicate(json.dumps(order).encode(), SECONDS)
            verdict = "it is nested too deep"
        except subprocess.TimeoutExpired:
            child.kill()
            told, _ = child.communicate()
            verdict = f"it takes more than {SECONDS:.0f} seconds to compile"
        except BaseException:
            child.kill()
            raise
    reasons = [reason_of(json.loads(line)) for line in told.decode().splitlines()]
    return reasons if len(reasons) == len(grammars) else [*reasons, verdict]


def reason_of(error: str) -> Reason:
    """llguidance's words for people who do not know it, without the grammar that we wrote."""
    if not error:
        return ""
    lines = [line.strip() for line in error.splitlines()]
    detail = next((line for line in lines if line.startswith("error: ")), "")
    told = lines[0].partition("failed to compile JSON schema: ")[2]
    if told.startswith("Unimplemented keys: "):
        words = ", ".join(f"'{word}'" for word in json.loads(told.partition(": ")[2]))
        return escape(f"not supported: {words}")[:MAX_REASON_CHARACTERS]
    if detail:
        told = f"{PATTERN * bool(told)}{detail.removeprefix('error: ')}"
    told = named(told or lines[0])
    return escape(told)[:MAX_REASON_CHARACTERS]


TOO_LARGE = "it is too large or has too many alternatives"
PATTERN = "'pattern': "
KEYWORDS = {
    "Unknown format": "'format'",
    "Resource ": "'$ref'",
    "oneOf constraints": "'oneOf'",
    "patternProperty regexes": "'patternProperties'",
    "Failed to generate regex for": "'minimum', 'maximum'",
}
MEANINGS = {
    "NoExtension": "nothing can fulfil it",
    "Unsatisfiable": "nothing can fulfil it",
    "panic": TOO_LARGE,
    "schema too large": TOO_LARGE,
    "initial lexer configuration": TOO_LARGE,
    "lexer precomputation": TOO_LARGE,
    "fuel exhausted": TOO_LARGE,
}


def named(told: str) -> str:
    """The keyword in front, where the words do not name it; what they mean, where they tell of limits."""
    for words, meaning in MEANINGS.items():
        if told.startswith(words):
            return meaning
    for words, keyword in KEYWORDS.items():
        if told.startswith(words):
            return f"{keyword}: {told}"
    return told
