"""The node's listener: this host's devices and models, wire-compatible with the reference's neurons."""

from collections.abc import Sequence
from typing import Any

import trio
from quart import Response, request
from quart_trio import QuartTrio

from helexa.actors.place import Asker
from helexa.build import build_info
from helexa.errors import ModelNotFound
from helexa.host import Host, entry_of
from helexa.http.api import Api, add_api
from helexa.http.application import configure
from helexa.http.call import take_body
from helexa.http.files import add_files
from helexa.http.inside import add_inside
from helexa.http.stream import json
from helexa.loads import Loads, LoadSpec
from helexa.logs import Ring
from helexa.wire.fields import Fields, as_integer, parse_json
from helexa.wire.models import write_node_entry
from helexa.wire.openapi import description

MAX_NAME = 1000  # characters
MAX_DEVICES = 64


def node_app(
    api: Api,
    host: Host,
    loads: Loads,
    ring: Ring,
    trusted_peers: Sequence[str] = (),
) -> QuartTrio:
    app = QuartTrio("helexa.node")
    configure(app)
    build: dict[str, Any] = {}
    add_api(app, api)
    add_files(app, host, loads, trusted_peers)
    add_inside(app, host, loads, ring, trusted_peers)

    @app.before_serving
    async def note_build() -> None:
        """Before the checkout that the running code came from can change."""
        build.update(await trio.to_thread.run_sync(build_info))

    @app.get("/discovery")
    async def discovery() -> Response:
        return json(host.discovery_json() | {"stored": sorted(await host.stored())})

    @app.get("/health")
    async def health() -> Response:
        return json(await host.health_json())

    @app.get("/version")
    async def version() -> Response:
        return json(build)

    @app.get("/models")
    async def models() -> Response:
        return json(await host.models_json())

    @app.post("/models/load")
    async def load() -> Response:
        spec = read_spec(Fields(parse_json(await take_body(request))))
        entry = await loads.entry_for(spec)
        by: Asker = "request" if spec.on_demand and spec.by != "operator" else "operator"
        await host.node.load(entry, by, spec.devices, spec.quant).reply.wait()
        state = (await host.node.status()).model(entry.id)
        if state is None:
            raise ModelNotFound(f"Model {entry.id} was unloaded as soon as it was loaded.")
        return json(write_node_entry(entry_of(state)))

    @app.post("/models/unload")
    async def unload() -> Response:
        fields = Fields(parse_json(await take_body(request)))
        model = loads.id_of(fields.required_text("model_id", MAX_NAME))
        await host.node.unload(model, if_idle=bool(fields.flag("if_idle")))
        return json({"model_id": model, "status": "unloaded"})

    @app.get("/models/<path:name>/endpoint")
    async def endpoint(name: str) -> Response:
        state = (await host.node.status()).model(loads.id_of(name))
        if state is None:
            raise ModelNotFound(f"There is no model {name[:200]!r} on this node.", param="id")
        return json({"url": request.host_url.rstrip("/")})

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return json(description("node"))

    return app


def read_spec(fields: Fields) -> LoadSpec:
    devices = fields.array("devices", MAX_DEVICES) or []
    return LoadSpec(
        model_id=fields.required_text("model_id", MAX_NAME),
        source=fields.text("source", MAX_NAME) or "",
        harness=fields.text("harness", MAX_NAME) or "",
        quant=fields.text("quant", MAX_NAME) or "",
        tensor_parallel=fields.integer("tensor_parallel", 1, MAX_DEVICES) or 1,
        devices=tuple(
            as_integer(index, f"devices[{i}]", 0, MAX_DEVICES) for i, index in enumerate(devices)
        ),
        on_demand=bool(fields.flag("on_demand")),
        by="operator" if fields.text("by", MAX_NAME) == "operator" else "request",
        download="on_demand" if fields.text("download", MAX_NAME) == "on_demand" else "never",
    )
