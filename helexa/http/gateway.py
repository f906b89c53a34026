"""The gateway's listener: the fleet's one API."""

from typing import Any

import orjson
from quart import Response
from quart_trio import QuartTrio

from helexa import __version__
from helexa.actors.node import Node
from helexa.config.schema import Limits
from helexa.host import fleet_entries
from helexa.http.application import configure
from helexa.http.chat import Chat
from helexa.http.stream import json_response
from helexa.shelf import Shelf
from helexa.wire.models import write_list, write_named
from helexa.wire.openapi import description


def gateway_app(chat: Chat, shelf: Shelf, node: Node | None, limits: Limits) -> QuartTrio:
    app = QuartTrio("helexa.gateway")
    configure(app, limits)
    app.post("/v1/chat/completions", endpoint="chat")(chat.__call__)

    @app.get("/")
    async def root() -> Response:
        return json({"name": "helexa", "version": __version__, "api": "/openapi.json"})

    @app.get("/health")
    async def health() -> Response:
        return json({"status": "ok"})

    @app.get("/v1/models")
    async def models() -> Response:
        return json(write_list(await fleet_entries(shelf.catalogue, node)))

    @app.get("/v1/models/<path:name>")
    async def model(name: str) -> Response:
        return json(write_named(name, await fleet_entries(shelf.catalogue, node)))

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return json(description("gateway"))

    return app


def json(value: Any) -> Response:
    return json_response(orjson.dumps(value))
