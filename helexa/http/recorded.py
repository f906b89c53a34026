"""A request under its record, from its call to its end."""

from collections.abc import Awaitable, Callable

from quart import Response

from helexa.http.call import Call
from helexa.recorder import Recorder
from helexa.trace import Trace


async def recorded(
    kind: str, recorder: Recorder, call: Call, respond: Callable[[Call, Trace], Awaitable[Response]]
) -> Response:
    """What `respond` answers; however the request ends, `recorder` hears of it, once."""
    call.recorded = True
    trace = Trace(
        call.request_id, kind, call.principal, call.client_request_id, share=call.key.share
    )
    call.exits.callback(recorder.finish, trace)
    try:
        return await respond(call, trace)
    except Exception as error:
        trace.fail(error)
        raise
