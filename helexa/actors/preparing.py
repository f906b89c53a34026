"""Making the prompts of one request, beside the node's mailbox."""

from helexa import logs
from helexa.actors.ports import Library
from helexa.errors import HelexaError
from helexa.fleet.known import too_long
from helexa.messages import Prepare

log = logs.get("helexa.node")


async def prepare(library: Library, request: Prepare) -> None:
    """Answer the request: a long conversation takes seconds to render and tokenise."""
    limit = request.known.limit
    try:
        with request.scope:
            prompts = await library.prompts(request.known, request.conversation, request.salt)
            longest = max(len(prompt.ids) for prompt in prompts)
            if longest > limit.input:
                param = "prompt" if request.conversation.texts else "messages"
                raise too_long(limit, longest, param=param)
            request.reply.set(prompts)
    except HelexaError as error:
        request.reply.fail(error)
    except Exception as bug:  # one request's bug must not take the node down
        log.exception("prompt ended by a bug", bug, model=request.known.id)
        request.reply.fail(HelexaError("the prompt could not be made: an internal error"))
