"""The dialect of Anthropic's Messages: requests read, answers written whole and as streams."""

from helexa.wire.anthropic.request import MessagesRequest, read_request
from helexa.wire.anthropic.writer import StreamWriter, write_answer, write_count

__all__ = ["MessagesRequest", "StreamWriter", "read_request", "write_answer", "write_count"]
