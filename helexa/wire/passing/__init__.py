"""Streams that pass through in their own dialect, and what they tell in passing.

passage   what all of them have alike      frames  where a frame ends
chat      chat completions and completions  messages, responses
whole     answers that are not streams
"""

from helexa.wire.passing.chat import ChatPassage
from helexa.wire.passing.messages import MessagesPassage
from helexa.wire.passing.passage import Passage, Seen
from helexa.wire.passing.responses import ResponsesPassage
from helexa.wire.passing.whole import read_whole

__all__ = [
    "ChatPassage",
    "MessagesPassage",
    "Passage",
    "ResponsesPassage",
    "Seen",
    "read_whole",
]
