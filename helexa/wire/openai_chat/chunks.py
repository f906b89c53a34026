"""What stands around the choices of an answer: the head, the usage at the end, signs of life."""

import orjson
from attrs import define, field

from helexa.conversation import Json, Progress, Started, Usage
from helexa.errors import HelexaError
from helexa.wire import sse
from helexa.wire.envelope import envelope
from helexa.wire.exchange import Reply
from helexa.wire.openai_chat.choice import write_usage


def write_head(reply: Reply, id_prefix: str, kind: str) -> dict[str, Json]:
    """What a whole answer and every chunk of a stream begin with."""
    return {
        "id": reply.id(id_prefix),
        "object": kind,
        "created": reply.created,
        "model": reply.model,
    }


@define(eq=False)
class Chunks:
    """Choices to the chunks of one stream.  `kind` is their `object`.

    The usage comes in a chunk of its own if `include_usage`, else on the last finish chunk; so each
    of them is held back until it is known whether anything but the usage follows.
    """

    reply: Reply
    id_prefix: str
    kind: str
    include_usage: bool
    held: bytes = field(default=b"", init=False)  # the latest finish chunk, without its end
    head: bytes = field(default=b"", init=False)  # of every chunk, up to its choice

    def __attrs_post_init__(self) -> None:
        head = orjson.dumps(write_head(self.reply, self.id_prefix, self.kind))
        self.head = b'data: %s,"choices":[' % head[:-1]

    def chunk(self, choice: Json) -> bytes:
        return self.head + orjson.dumps(choice) + b"]}\n\n"

    def around(self, before: bytes, after: bytes) -> tuple[bytes, bytes]:
        """What stands before and after the text of a chunk that comes once per token."""
        return self.head + before, after + b"]}\n\n"

    def finish(self, choice: Json) -> bytes:
        """The chunk that finishes a choice, or nothing while it is held back."""
        if self.include_usage:
            return self.chunk(choice)
        self.held = self.head + orjson.dumps(choice)
        return b""

    def release(self) -> bytes:
        """What was held back, now that something else follows."""
        held, self.held = self.held, b""
        return held + b"]}\n\n" if held else b""

    def end(self, usage: Usage) -> bytes:
        last = self.held or self.head
        return b'%s],"usage":%s}\n\n%s' % (last, orjson.dumps(write_usage(usage)), sse.DONE)

    def sign(self, event: Progress | Started) -> bytes:
        """A comment, which clients ignore: it keeps the connection alive."""
        match event:
            case Progress(phase, done, total):
                return sse.comment(f"{phase} {done}/{total}")
            case Started(prompt_tokens, cached_tokens):
                return sse.comment(f"started {prompt_tokens} cached {cached_tokens}")

    def error(self, error: HelexaError) -> bytes:
        told = envelope(error, self.reply.request_id)
        return sse.frame(orjson.dumps(told)) + sse.DONE
