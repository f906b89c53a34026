"""Routes of OpenAI's API whose requests are passed on unread: embeddings, reranking, audio, images."""

from collections.abc import AsyncGenerator
from functools import partial

import orjson
from attrs import frozen
from quart import Response, request
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse

from helexa.errors import HelexaError
from helexa.http.call import Call, call_of
from helexa.http.inference import route_headers
from helexa.http.recorded import recorded
from helexa.opaque import Opaque, OpaqueAnswer, OpaqueRequest
from helexa.recorder import Recorder
from helexa.trace import Trace
from helexa.wire.fields import Fields, parse_json
from helexa.wire.form import Form, is_form, read_form
from helexa.wire.request import read_model

# By the path, what its requests are called in records.
PATHS = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/rerank": "rerank",
    "/v1/audio/speech": "audio",
    "/v1/audio/transcriptions": "audio",
    "/v1/audio/translations": "audio",
    "/v1/images/generations": "images",
    "/v1/images/edits": "images",
    "/v1/images/variations": "images",
}
# What may be answered with; a page that a browser would run is none of it.
KINDS = (
    "application/json",
    "application/octet-stream",
    "audio/",
    "image/",
    "text/event-stream",
    "text/plain",
    "text/vtt",
)
UNKNOWN = "application/octet-stream"


def add_opaque(app: QuartTrio, opaque: Opaque, recorder: Recorder) -> None:
    for path, kind in PATHS.items():
        app.post(path, endpoint=path)(Route(path, kind, opaque, recorder).__call__)


@frozen
class Route:
    path: str
    kind: str
    opaque: Opaque
    recorder: Recorder

    async def __call__(self) -> Response:
        return await recorded(self.kind, self.recorder, call_of(request), self._respond)

    async def _respond(self, call: Call, trace: Trace) -> Response:
        content_type, data = call.headers.get("content-type", ""), await call.body.take()
        asked = read_opaque(self.path, content_type, data, call)
        answer = await self.opaque.ask(asked, trace)
        call.exits.callback(answer.close)
        response = TrioResponse(told(answer, trace), content_type=kind_of(answer))
        response.headers.extend(route_headers(call, trace))
        response.headers.extend([("x-content-type-options", "nosniff")])
        return response


def read_opaque(path: str, content_type: str, data: bytes, call: Call) -> OpaqueRequest:
    if is_form(content_type):
        form = read_form(content_type, data)
        model = read_model(Fields({"model": form.field("model")}))
        write = partial(write_form, form)
        return OpaqueRequest(path, model, form.num_words_bytes, call.key, write)
    body = parse_json(data)
    model = read_model(Fields(body))
    return OpaqueRequest(path, model, len(data), call.key, partial(write_json, body))


def write_form(form: Form, model: str) -> tuple[str, bytes]:
    return form.with_field("model", model).write()


def write_json(body: dict[str, object], model: str) -> tuple[str, bytes]:
    return "application/json", orjson.dumps({**body, "model": model})


def kind_of(answer: OpaqueAnswer) -> str:
    kind = answer.response.header("content-type")
    return kind if kind.lower().startswith(KINDS) else UNKNOWN


async def told(answer: OpaqueAnswer, trace: Trace) -> AsyncGenerator[bytes, None]:
    """What fails after the head can only be told by a body that is cut short."""
    try:
        async for piece in answer.pieces():
            yield piece
    except HelexaError as error:
        trace.fail(error)
        raise
