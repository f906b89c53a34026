"""What a gateway and its operator read of this node: its log lines, and what is known of a model."""

from collections.abc import Sequence

from quart import Response, request
from quart_trio import QuartTrio

from helexa.host import Host
from helexa.http.stream import json
from helexa.http.trusted import check_trusted
from helexa.loads import Loads, LoadSpec
from helexa.logs import RING_LINES, Ring


def add_inside(app: QuartTrio, host: Host, loads: Loads, ring: Ring, peers: Sequence[str]) -> None:
    """`peers` are addresses that are trusted where the listener has no token."""

    @app.get("/logs")
    async def logs() -> Response:
        """From the line `since` on, else the last `lines`; `next` is what to ask for after that."""
        check_trusted(request, peers)
        last = max(0, ring.end - number("lines", RING_LINES))
        lines, end, lost = ring.since(number("since", last))
        return json({"next": end, "lost": lost, "lines": lines})

    @app.get("/models/<path:name>/limit")
    async def limit(name: str) -> Response:
        check_trusted(request, peers)
        entry = await loads.entry_for(LoadSpec(name))
        return json(await host.limit_json(entry))

    @app.get("/models/<path:name>/entry")
    async def entry(name: str) -> Response:
        """As GET /models tells of it, though it need not be loaded; its files must be here."""
        check_trusted(request, peers)
        spec = LoadSpec(name, request.args.get("source", ""), on_demand=True)
        return json(await host.entry_json(await loads.entry_for(spec)))


def number(name: str, default: int) -> int:
    """A whole number of the query; what is none counts as not asked."""
    text = request.args.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= 18 else default
