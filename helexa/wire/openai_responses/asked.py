"""What a request asks for that its answer depends on."""

from attrs import field, frozen

from helexa.conversation import Conversation, Json, Message
from helexa.wire.openai_responses.settings import Shown
from helexa.wire.openai_responses.stored import Past
from helexa.wire.openai_responses.tools import Toolbox
from helexa.wire.places import Places


@frozen
class Asked:
    """`kept` are the messages that a next request goes on from: all but the instructions.

    `toolbox` turns the names of calls back, `echo` is told again in the response, `input` are the items
    of this request, `earlier` those that it goes on from, as JSON lists.  `compacts` asks for a summary
    of the conversation in place of an answer.  `past` is there if the response is to be kept.  `passes`
    as in `wire.exchange`: neither is it to be kept nor does it go on from what was.
    """

    conversation: Conversation
    kept: tuple[Message, ...] = ()
    toolbox: Toolbox = field(factory=Toolbox)
    shown: Shown = field(factory=Shown)
    compacts: bool = False
    echo: dict[str, Json] = field(factory=dict, repr=False)
    input: tuple[Json, ...] = field(default=(), repr=False)
    earlier: tuple[bytes, ...] = field(default=(), repr=False)
    past: Past | None = None
    passes: bool = False
    places: Places = field(factory=dict, repr=False)
