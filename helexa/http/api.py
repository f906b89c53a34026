"""The API under /v1, as a gateway and a node both offer it: every dialect, and the lists of models."""

from collections.abc import Awaitable, Callable, Iterable

import trio
from attrs import frozen
from quart import Response, request
from quart_trio import QuartTrio

from helexa.capture import Capture
from helexa.conversation import Json, Principal
from helexa.errors import HelexaError, InvalidRequest
from helexa.fleet.entry import ModelEntry
from helexa.http.application import direct
from helexa.http.call import call_of
from helexa.http.inference import Answers, Inference, Read, take_exchange, with_wishes
from helexa.http.stream import json, json_response
from helexa.nodes.asked import Dialect
from helexa.recorder import Recorder
from helexa.responses import AccountResponses, Responses
from helexa.wire import anthropic, openai_chat, openai_completions, openai_responses
from helexa.wire.exchange import Exchange
from helexa.wire.models import named, write_list, write_named
from helexa.wire.openai_responses import Stored
from helexa.wire.places import put_in_place

Entries = Callable[[], Awaitable[Iterable[ModelEntry]]]
ReadAlone = Callable[[Json], Exchange]


@frozen
class Api:
    """What the routes stand on.  `entries` gives the models that can be asked for."""

    answers: Answers
    entries: Entries
    responses: Responses
    recorder: Recorder
    capture: Capture
    stream_open_seconds: float

    def inference(self, dialect: Dialect, read: Read) -> Inference:
        return Inference(
            dialect, read, self.answers, self.recorder, self.capture, self.stream_open_seconds
        )

    def stored_for(self, principal: Principal) -> AccountResponses:
        return self.responses.of(principal.account_id, trio.current_time)


def add_api(app: QuartTrio, api: Api) -> None:
    """Routes that differ between listeners in what `api` holds alone."""
    add_chat(app, api)
    add_responses(app, api)
    add_messages(app, api)
    add_models(app, api)


def add_inference(app: QuartTrio, path: str, route: Inference) -> None:
    """What is asked most goes its own way (`application.direct`); Quart's is for what is not quite it."""

    @app.post(path, endpoint=path)
    async def through_quart() -> Response:
        return await route(call_of(request))

    direct(app)["POST", path] = route


def alone(read: ReadAlone) -> Read:
    """For a dialect whose requests say all there is to know."""
    return lambda body, principal: read(body)


# -- the dialects --------------------------------------------------------------------------------------


def add_chat(app: QuartTrio, api: Api) -> None:
    add_inference(
        app, "/v1/chat/completions", api.inference("chat", alone(openai_chat.read_request))
    )
    add_inference(
        app, "/v1/completions", api.inference("completions", alone(openai_completions.read_request))
    )


def add_messages(app: QuartTrio, api: Api) -> None:
    read = alone(anthropic.read_request)
    add_inference(app, "/v1/messages", api.inference("messages", read))

    @app.post("/v1/messages/count_tokens")
    async def count_tokens() -> Response:
        return json_response(anthropic.write_count(await count(api.answers, read)))


def add_responses(app: QuartTrio, api: Api) -> None:
    def read(body: Json, principal: Principal) -> Exchange:
        return openai_responses.read_request(body, PastOf(api.stored_for(principal)))

    def read_compaction(body: Json, principal: Principal) -> Exchange:
        return openai_responses.read_compaction(body, PastOf(api.stored_for(principal)))

    add_inference(app, "/v1/responses", api.inference("responses", read))
    add_inference(app, "/v1/responses/compact", api.inference("responses", read_compaction))

    @app.post("/v1/responses/input_tokens")
    async def input_tokens() -> Response:
        return json_response(openai_responses.write_count(await count(api.answers, read)))

    @app.get("/v1/responses/<name>")
    async def stored(name: str) -> Response:
        # A client that wants events would take JSON for a stream without any.
        if request.args.get("stream") == "true":
            raise InvalidRequest("a response that is kept is told whole only", param="stream")
        return json_response(api.stored_for(call_of(request).principal).find(name).response)

    @app.delete("/v1/responses/<name>")
    async def forget(name: str) -> Response:
        api.stored_for(call_of(request).principal).forget(name)
        return json_response(openai_responses.write_deleted(name))

    @app.post("/v1/responses/<name>/cancel")
    async def cancel(name: str) -> Response:
        api.stored_for(call_of(request).principal).find(name)
        raise InvalidRequest(
            "This response has ended: nothing runs in the background here, where it could be cancelled. "
            "Close its connection to stop an answer."
        )

    @app.get("/v1/responses/<name>/input_items")
    async def input_items(name: str) -> Response:
        found = api.stored_for(call_of(request).principal).find(name)
        asked = {
            key: request.args[key] for key in ("order", "limit", "after") if key in request.args
        }
        return json_response(openai_responses.write_input_items(found, **asked))


@frozen
class PastOf:
    """What one account may go on from, also for a request that is read in a thread."""

    responses: AccountResponses

    def find(self, response_id: str) -> Stored:
        if trio.lowlevel.in_trio_run():
            return self.responses.find(response_id)
        return trio.from_thread.run_sync(self.responses.find, response_id)

    def keep(self, stored: Stored) -> None:
        self.responses.keep(stored)


async def count(answers: Answers, read: Read) -> int:
    """The tokens of the prompt that the request in hand would make."""
    call = call_of(request)
    exchange, _, _ = await take_exchange(read, call)
    try:
        return await answers.count(with_wishes(exchange.conversation, call.headers), call.key)
    except HelexaError as error:
        raise put_in_place(error, exchange.places) from None


# -- models --------------------------------------------------------------------------------------------


def add_models(app: QuartTrio, api: Api) -> None:
    @app.get("/v1/models")
    async def list_models() -> Response:
        call = call_of(request)
        allowed = [entry for entry in await api.entries() if call.key.may_use(entry.names)]
        return json(write_list(allowed, call.shape))

    @app.get("/v1/models/<path:name>")
    async def show_model(name: str) -> Response:
        call, entries = call_of(request), list(await api.entries())
        call.key.check_use(named(name, entries).names)
        return json(write_named(name, entries, call.shape))
