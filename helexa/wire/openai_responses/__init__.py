"""The dialect of OpenAI's Responses, in both directions: bytes and JSON here, values there.

request   a request as a whole            settings  what it asks for beside its items
items     its input: messages, calls ...   content   what messages and results hold
tools     its tools, as functions          choice    which of them must be called
calls     calls of them and their results
asked     what an answer depends on        stored    a response that is kept
output    the answer while it comes        item      one item of it
writer    the stream of its events         response  the response object, whole answers
reader    answers of other servers         item_reader  one item of them
relayed   a stream that another server writes
partial   the input of a custom tool, as it comes
compact   a conversation made short        summary   what it is replayed as
"""

from helexa.wire.openai_responses.compact import CompactionRequest, read_compaction
from helexa.wire.openai_responses.reader import StreamReader, read_answer
from helexa.wire.openai_responses.request import ResponsesRequest, read_request, write_request
from helexa.wire.openai_responses.response import write_count
from helexa.wire.openai_responses.stored import Past, Stored, write_deleted, write_input_items
from helexa.wire.openai_responses.writer import StreamWriter

__all__ = [
    "CompactionRequest",
    "Past",
    "ResponsesRequest",
    "Stored",
    "StreamReader",
    "StreamWriter",
    "read_answer",
    "read_compaction",
    "read_request",
    "write_count",
    "write_deleted",
    "write_input_items",
    "write_request",
]
