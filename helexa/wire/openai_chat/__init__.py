"""The dialect of OpenAI's chat completions, in both directions: bytes and JSON here, values there."""

from helexa.wire.openai_chat.reader import StreamReader, read_answer
from helexa.wire.openai_chat.request import ChatRequest, read_request, write_request
from helexa.wire.openai_chat.writer import StreamWriter, write_answer

__all__ = [
    "ChatRequest",
    "StreamReader",
    "StreamWriter",
    "read_answer",
    "read_request",
    "write_answer",
    "write_request",
]
