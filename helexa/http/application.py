"""What every Quart application here needs, whatever its routes: no time limits of Quart's own, and
errors in the envelope."""

from collections.abc import Awaitable, Callable
from typing import Any

from quart import Quart, Response, request
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException

from helexa.errors import HelexaError, InvalidRequest, MethodNotAllowed, NotFound
from helexa.http.call import Call, call_of
from helexa.http.refusals import LONGEST_PATH, cut
from helexa.http.stream import json_response
from helexa.wire.envelope import status_and_body

Direct = Callable[[Call], Awaitable[Response]]


def configure(app: QuartTrio) -> None:
    """Call it once, before the first request.

    A response may take for ever; the guard bounds bodies in size and in silence (`call.take_body`
    reads one).  A route may raise any HelexaError, at any time before its response; what else it raises
    reaches the guard, which logs it and answers 500.
    """
    app.asgi_http_class = OneTask
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.url_map.strict_slashes = False  # a path may end with a slash
    app.register_error_handler(HelexaError, error_response)
    app.register_error_handler(HTTPException, http_error_response)


def direct(app: Quart) -> dict[tuple[str, str], Direct]:
    """What answers a method at a path as it stands here, without the cost of a Quart request."""
    routes: dict[tuple[str, str], Direct] = app.extensions.setdefault("helexa", {})
    return routes


class OneTask(TrioASGIHTTPConnection):
    """A request in the task that the server runs it in, which ends it when the client leaves."""

    async def __call__(self, receive: Any, send: Any) -> None:
        with self.scope["state"]["leaving"]:
            route = direct(self.app).get((self.scope["method"], self.scope["path"]))
            if route is None:
                request = self._create_request_from_scope(send)
                response = await self.app.handle_request(request)
            else:
                response = await answered(route, self.scope["state"]["call"])
            await self._send_response(send, response)

    async def _send_response(self, send: Any, response: Any) -> None:
        """A body that is here whole goes out in one message."""
        if not isinstance(response.response, DataBody):
            return await super()._send_response(send, response)
        headers = encode_headers(response.headers)
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        body = response.response
        await send({"type": "http.response.body", "body": body.data[body.begin : body.end]})


async def answered(route: Direct, call: Call) -> Response:
    try:
        return await route(call)
    except HelexaError as error:
        return told_to(call, error)


async def error_response(error: HelexaError) -> Response:
    """As `told_to`, for the request in hand."""
    return told_to(call_of(request), error)


def told_to(call: Call, error: HelexaError) -> Response:
    """`error` in the envelope of the client's dialect, under the id of its request."""
    call.refusal = error
    status, headers, body = status_and_body(error, call.request_id, call.shape)
    return json_response(body, status, [pair for pair in headers if pair[0] != "content-type"])


async def http_error_response(error: HTTPException) -> Response:
    """What Quart itself refuses: no such route, no such method, and the like."""
    response = await error_response(told(error, request.path))
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["allow"] = ", ".join(sorted(allowed))
    return response


def told(error: HTTPException, path: str) -> HelexaError:
    match error.code:
        case 404:
            return NotFound(f"There is nothing at {cut(path, LONGEST_PATH)}.{hint(path)}")
        case 405:
            return MethodNotAllowed("This path does not take this method.")
        case _:
            return InvalidRequest(f"The request cannot be served: {error.name}.")


def hint(path: str) -> str:
    """What is most often wrong with the base URL of a client."""
    if path.startswith("/v1/v1/"):
        return " Leave /v1 out of the base URL: this client adds it."
    if path.startswith(("/chat/", "/completions", "/responses", "/messages", "/models")):
        return " The API is under /v1: the base URL must end with it."
    return ""
