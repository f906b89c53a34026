"""Reasoning between two markers."""

from helexa.text.markup.names import Markup
from helexa.text.markup.outputs import Think
from helexa.text.markup.source import Reading, Source
from helexa.text.markup.speech import Speech
from helexa.text.stops import Automaton

NEWLINES = "\r\n"


def opens_thinking(markup: Markup, prompt: str) -> bool:
    """Whether the prompt ends inside reasoning, so that the model goes on with that."""
    return markup.think is not None and prompt.rstrip().endswith(markup.think[0].rstrip())


def read_thought(source: Source, think: tuple[str, str]) -> Reading[None]:
    """Reasoning up to the closing marker.  An opening one that is said again is left out."""
    opening, closing = think
    source.thinking = True
    yield from source.skip(NEWLINES)
    yield from source.next(opening)
    speech = Speech(Think, NEWLINES)
    if (yield from source.until(Automaton((closing,)), speech.say)):
        source.thinking = False
    else:
        yield from speech.finish()
