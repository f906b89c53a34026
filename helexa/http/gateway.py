"""The gateway's listener: the fleet's one API."""

from collections.abc import Callable

from quart import Response
from quart_trio import QuartTrio

from helexa import __version__
from helexa.fleet.view import Activation
from helexa.http.api import Api, add_api
from helexa.http.application import configure
from helexa.http.opaque import add_opaque
from helexa.http.stream import json
from helexa.opaque import Opaque
from helexa.recorder import Recorder
from helexa.wire.openapi import description


def gateway_app(
    api: Api,
    opaque: Opaque,
    recorder: Recorder,
    activation: Callable[[], Activation],
) -> QuartTrio:
    """`activation` tells how far the models are that come up by themselves."""
    app = QuartTrio("helexa.gateway")
    configure(app)
    add_api(app, api)
    add_opaque(app, opaque, recorder)

    @app.get("/")
    async def root() -> Response:
        return json({"name": "helexa", "version": __version__, "api": "/openapi.json"})

    @app.get("/health")
    async def health() -> Response:
        """No model is named: whoever has no key may ask, too."""
        return json({"status": "ok", "activation": {"state": activation()}})

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return json(description("gateway"))

    return app
