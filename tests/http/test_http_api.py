"""The routes beside the answers: counting, stored responses, lists of models, keys."""

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from dialects import MESSAGES, RESPONSES, Ended, Scripted, app_of, make_api
from http_peer import Peer, Reply, Start

from helexa.accounts.keys import Key
from helexa.accounts.provider import Unmetered
from helexa.conversation import Principal
from helexa.fleet.catalogue import CatalogueModel
from helexa.fleet.entry import ModelEntry
from helexa.http.doors import Door
from helexa.http.gateway import gateway_app
from helexa.opaque import Opaque

VERSION = "anthropic-version: 2023-06-01"
GUARDED = Door(token="s3cret", believe_principals=True)
KEY = "x-api-key: s3cret"


async def connect(
    start: Start, directory: Path, answers: Scripted | None = None, **served: Any
) -> Peer:
    return await (await start(app_of(make_api(directory, answers)), **served)).connect()


# -- counting ----------------------------------------------------------------------------------------


async def test_the_tokens_of_messages_are_counted(start: Start, tmp_path: Path) -> None:
    answers = Scripted()
    peer = await connect(start, tmp_path, answers)
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    reply = await peer.ask("POST /v1/messages/count_tokens?beta=true", VERSION, body=body)
    assert (reply.status, reply.json) == (200, {"input_tokens": 42})
    assert answers.asked[0].model == "m"


async def test_the_tokens_of_a_response_s_input_are_counted(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    reply = await peer.ask("POST /v1/responses/input_tokens", body=RESPONSES.body())
    assert reply.json == {"object": "response.input_tokens", "input_tokens": 42}


async def test_what_cannot_be_counted_is_refused_in_the_dialect(
    start: Start, tmp_path: Path
) -> None:
    peer = await connect(start, tmp_path)
    reply = await peer.ask("POST /v1/messages/count_tokens", body=b'{"model": "m", "messages": 7}')
    assert (reply.status, reply.json["type"]) == (400, "error")
    assert reply.error["param"] == "messages"


# -- stored responses --------------------------------------------------------------------------------


async def test_a_stored_response_is_found_gone_on_with_and_forgotten(
    start: Start, tmp_path: Path
) -> None:
    answers = Scripted()
    peer = await connect(start, tmp_path, answers)
    made = (await peer.ask("POST /v1/responses", body=RESPONSES.body())).json
    path = f"/v1/responses/{made['id']}"
    assert (await peer.ask(f"GET {path}")).json == made
    items = (await peer.ask(f"GET {path}/input_items")).json
    assert items["object"] == "list"
    assert "hi" in str(items["data"])
    body = RESPONSES.body(input="and then?", previous_response_id=made["id"])
    assert (await peer.ask("POST /v1/responses", body=body)).status == 200
    assert "Hello there" in str(answers.asked[-1].messages)
    ended = await peer.ask(f"POST {path}/cancel")
    assert (ended.status, ended.error["type"]) == (400, "invalid_request_error")
    gone = (await peer.ask(f"DELETE {path}")).json
    assert (gone["id"], gone["deleted"]) == (made["id"], True)
    assert (await peer.ask(f"GET {path}")).status == 404


async def test_a_streamed_response_is_stored_too(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    reply = await peer.ask("POST /v1/responses", body=RESPONSES.body(stream=True))
    made = "resp_" + reply.headers["x-request-id"].removeprefix("req_")
    stored = (await peer.ask(f"GET /v1/responses/{made}")).json
    assert (stored["id"], stored["status"]) == (made, "completed")


async def test_nobody_finds_the_responses_of_another_account(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path, door=Door(believe_principals=True))
    ann, bob = "x-helexa-account-id: ann", "x-helexa-account-id: bob"
    made = (await peer.ask("POST /v1/responses", ann, body=RESPONSES.body())).json
    path = f"/v1/responses/{made['id']}"
    assert (await peer.ask(f"GET {path}", ann)).status == 200
    lines = (f"GET {path}", f"GET {path}/input_items", f"POST {path}/cancel", f"DELETE {path}")
    for line in lines:
        assert (await peer.ask(line, bob)).status == 404
    body = RESPONSES.body(previous_response_id=made["id"])
    assert (await peer.ask("POST /v1/responses", bob, body=body)).status in (400, 404)
    assert (await peer.ask(f"GET {path}", ann)).status == 200


async def test_what_need_not_be_stored_is_not(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    made = (await peer.ask("POST /v1/responses", body=RESPONSES.body(store=False))).json
    assert (await peer.ask(f"GET /v1/responses/{made['id']}")).status == 404


# -- models ------------------------------------------------------------------------------------------


async def test_models_are_listed_in_the_shape_that_is_asked_for(
    start: Start, tmp_path: Path
) -> None:
    peer = await connect(start, tmp_path)
    plain = (await peer.ask("GET /v1/models?client_version=0.169.0")).json
    assert plain["object"] == "list"
    assert [model["id"] for model in plain["data"]] == ["m", "a/b"]
    theirs = (await peer.ask("GET /v1/models?limit=1000", VERSION)).json
    assert [model["type"] for model in theirs["data"]] == ["model", "model"]
    assert theirs["has_more"] is False


async def test_one_model_is_told_in_either_shape(start: Start, tmp_path: Path) -> None:
    peer = await connect(start, tmp_path)
    assert (await peer.ask("GET /v1/models/a/b")).json["object"] == "model"
    assert (await peer.ask("GET /v1/models/a/b", VERSION)).json["type"] == "model"


class Keyring(Unmetered):
    """A key whose secret is the one model that it may use; `all` may use every one."""

    async def resolve(self, secret: bytes) -> Key | None:
        allowed = () if secret == b"all" else (secret.decode(),)
        return Key(Principal("lab", "key"), allowed_models=allowed)


async def large_and_small() -> list[ModelEntry]:
    return [ModelEntry("large", aliases=("best",)), ModelEntry("small", aliases=("fast", "cheap"))]


@pytest.mark.parametrize(
    ("key", "listed"),
    [
        ("all", ["large", "best", "small", "fast", "cheap"]),
        ("small", ["small", "fast", "cheap"]),
        ("best", ["large", "best"]),
        ("gone", []),
    ],
)
@pytest.mark.parametrize("shape", [(), (VERSION,)])
async def test_a_key_sees_the_models_that_it_may_use_under_all_their_names(
    start: Start, tmp_path: Path, key: str, listed: list[str], shape: tuple[str, ...]
) -> None:
    api = evolve(make_api(tmp_path), entries=large_and_small)
    served = await start(app_of(api), door=Door(takes_keys=True), budgets=Keyring())
    peer = await served.connect()
    told = (await peer.ask("GET /v1/models", f"x-api-key: {key}", *shape)).json
    assert [model["id"] for model in told["data"]] == listed
    for name in ("large", "best", "small", "fast", "cheap"):
        reply = await peer.ask(f"GET /v1/models/{name}", f"x-api-key: {key}", *shape)
        assert reply.status == (200 if name in listed else 403)
    assert (await peer.ask("GET /v1/models/ghost", f"x-api-key: {key}", *shape)).status == 404


async def test_a_probe_of_the_base_url_is_answered(start: Start, tmp_path: Path) -> None:
    api = make_api(tmp_path)
    no_fleet: Any = None
    nowhere = Opaque(lambda name: CatalogueModel(name), no_fleet, {}, Unmetered())
    app = gateway_app(api, nowhere, api.recorder, lambda: "ready")
    peer = await (await start(app)).connect()
    for line in ("HEAD /", "GET /", "HEAD /health", "HEAD /v1/models"):
        assert (await peer.ask(line)).status == 200


# -- keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", MESSAGES.body()),
        ("/v1/messages/count_tokens", MESSAGES.body()),
        ("/v1/responses/input_tokens", RESPONSES.body()),
    ],
)
async def test_a_key_may_come_in_either_header(
    start: Start, tmp_path: Path, path: str, body: bytes
) -> None:
    peer = await connect(start, tmp_path, door=GUARDED)
    assert (await peer.ask(f"POST {path}", body=body)).status == 401
    assert (await peer.ask(f"POST {path}", "x-api-key: wrong", body=body)).status == 401
    assert (await peer.ask(f"POST {path}", KEY, body=body)).status == 200
    bearer = "authorization: Bearer s3cret"
    assert (await peer.ask(f"POST {path}", bearer, body=body)).status == 200


async def test_the_principal_of_a_request_is_told_to_its_record(
    start: Start, tmp_path: Path
) -> None:
    ended = Ended()
    served = await start(app_of(make_api(tmp_path, None, ended)), door=GUARDED)
    peer = await served.connect()
    reply: Reply = await peer.ask(
        "POST /v1/messages", KEY, "x-helexa-account-id: ann", body=MESSAGES.body()
    )
    assert reply.status == 200
    assert (await ended.trace()).principal == Principal("ann", "ann")
