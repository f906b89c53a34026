"""How models mark up what they write: where reasoning begins and ends, how a tool is called.

names      Markup, what is known of a model        detect     by its chat template and tokens
reader     MarkupReader: text in any pieces to outputs, in every format; each format's own in
tagged     hermes, qwen_xml and glm (elements: an element per argument, values, schema)
llama_json, mistral, pythonic (literals)           sections   deepseek_v3, deepseek_v31, kimi
harmony    channels                                thought    reasoning between two markers
call_object, bare, json_text, speech, source       what they are written with
"""

from helexa.text.markup.detect import detect, ends_of
from helexa.text.markup.names import Markup, ToolFormat
from helexa.text.markup.outputs import Arguments, Call, Ended, Output, Say, Think
from helexa.text.markup.reader import MarkupReader, markers_of
from helexa.text.markup.thought import opens_thinking

__all__ = [
    "Arguments",
    "Call",
    "Ended",
    "Markup",
    "MarkupReader",
    "Output",
    "Say",
    "Think",
    "ToolFormat",
    "detect",
    "ends_of",
    "markers_of",
    "opens_thinking",
]
