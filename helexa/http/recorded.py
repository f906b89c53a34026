"""The request in hand under its record, from its call to its end."""

from collections.abc import Awaitable, Callable

from quart import Response, request

from helexa.http.call import Call, call_of
from helexa.recorder import Recorder
from helexa.trace import Trace


async def recorded(
    kind: str, recorder: Recorder, respond: Callable[[Call, Trace], Awaitable[Response]]
) -> Response:
    """What `respond` answers; however the request ends, `recorder` hears of it, once."""
    call = call_of(request)
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
