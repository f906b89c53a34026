"""What `helexa-ctl` reads of another node: its log lines, and what bounds a model's context there."""

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import trio
from attrs import frozen

from helexa.control.nodes import client_of
from helexa.control.protocol import Json
from helexa.errors import InvalidRequest, ServiceUnavailable
from helexa.nodes.client import Client, Whole
from helexa.nodes.refusals import error_object, operation_error
from helexa.nodes.told import Told, parse_object

TICK_SECONDS = 1.0  # between two looks at the lines of a node that is followed
LONGEST_LINE = 4000
LEVELS = ("debug", "info", "warning", "error", "critical")


@frozen(eq=False)
class Elsewhere:
    """`clients` has one for each node that is reached over HTTP, by its name."""

    clients: Mapping[str, Client]

    async def logs(
        self, node: str, lines: int, *, follow: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """As the verb `logs` tells those of this process."""
        path = f"/logs?lines={lines}"
        while True:
            told = await self._read(node, path)
            if lost := told.count("lost"):
                yield {"lost": lost}
            for line in told.objects("lines"):
                if event := event_of(line):
                    yield {"event": event}
            if not follow:
                return
            path = f"/logs?since={told.count('next')}"
            await trio.sleep(TICK_SECONDS)

    async def limit(self, node: str, model: str) -> Json:
        """As the verb `why-limit` tells of a model of this process."""
        told = await self._read(node, f"/models/{quote(model, safe='')}/limit")
        limit = told.object("limit")
        return {
            "model": told.text("model"),
            "node": node,
            "status": told.text("status"),
            "limit": {name: limit.count(name) for name in ("context", "input", "output")},
            "limit_estimated": told.flag("limit_estimated"),
            "binds": told.text("binds"),
            "terms": [term_of(term) for term in told.objects("terms")],
        }

    async def _read(self, node: str, path: str) -> Told:
        """NodeLost where it is away, InvalidRequest where it is none that tells."""
        client = client_of(self.clients, node)
        if client.node.kind != "helexa":
            raise InvalidRequest(
                f"node {node} is of kind {client.node.kind}: it tells neither logs nor limits",
                param="node",
            )
        answer = await client.fetch("GET", path)
        if answer.status == 200:
            return parse_object(answer.body)
        raise too_old(node) if knows_no_route(answer) else operation_error(node, answer)


def knows_no_route(answer: Whole) -> bool:
    return answer.status == 404 and error_object(answer).text("code") != "model_not_found"


def too_old(node: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"node {node} does not tell that to others: its helexa is too old")


def event_of(told: Told) -> dict[str, Any] | None:
    """A line as `log_lines` shows it; None for what is none."""
    try:
        time = datetime.fromisoformat(told.text("time")).isoformat(timespec="milliseconds")
    except ValueError:
        return None
    fields = {name: value for name, value in told.values.items() if is_plain(value)}
    return {
        **fields,
        "time": time,
        "level": told.word("level", LEVELS) or "info",
        "logger": told.text("logger"),
        "event": told.text("event", most=LONGEST_LINE),
        "traceback": str(fields.get("traceback", "")),
    }


def is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def term_of(told: Told) -> Json:
    tokens = told.count("tokens") if told.has("tokens") else None
    return {"name": told.text("name"), "tokens": tokens, "from": told.text("from")}
