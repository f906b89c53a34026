"""Trying a node step by step, for a person who wants to know what is wrong with it."""

import time
from collections.abc import AsyncGenerator, Callable
from email.utils import parsedate_to_datetime

import trio
from attrs import frozen

from helexa.errors import HelexaError
from helexa.fleet.view import ModelView
from helexa.nodes import shapes
from helexa.nodes.client import Client, Whole
from helexa.nodes.endpoint import is_in_clear
from helexa.nodes.offers import read_offers
from helexa.nodes.refusals import operation_error

MOST_SKEW_SECONDS = 5.0  # a Date header tells whole seconds, and the answer took its time
NUM_LISTED = 5


@frozen
class Finding:
    """`ok` is None for what is neither well nor wrong."""

    what: str
    ok: bool | None
    text: str


async def probe(
    client: Client, unix_time: Callable[[], float] = time.time
) -> AsyncGenerator[Finding, None]:
    """What is found, as it is found; it ends with the first thing without which the rest makes no sense."""
    node = client.node
    is_upstream = node.kind == "openai"
    listing = "/v1/models" if is_upstream else "/models"
    try:
        alive = await client.fetch("GET", listing if is_upstream else "/health")
        yield Finding("address", True, f"{client.endpoint} answers")
        yield clock(alive, unix_time())
        answer = await client.fetch("GET", listing)
        yield token(client, answer)
        if answer.status != 200:
            return
        if not is_upstream:
            yield await version(client)
        yield models(read_offers(answer.body) if is_upstream else shapes.read_models(answer.body))
        began_at = trio.current_time()
        await client.fetch("GET", listing)
        yield Finding("latency", None, f"{(trio.current_time() - began_at) * 1000:.1f} ms")
    except HelexaError as error:
        yield Finding("answer", False, error.message)


def clock(answer: Whole, now: float) -> Finding:
    """How the node's clock differs from this one."""
    try:
        theirs = parsedate_to_datetime(answer.header("date")).timestamp()
    except (ValueError, OverflowError):
        return Finding("clock", None, "it does not tell the time")
    ahead = theirs - now
    if abs(ahead) <= MOST_SKEW_SECONDS:
        return Finding("clock", True, "it agrees with this machine's")
    way = "ahead of" if ahead > 0 else "behind"
    return Finding("clock", False, f"it is {abs(ahead):.0f} s {way} this machine's")


def token(client: Client, answer: Whole) -> Finding:
    node = client.node
    if answer.status in (401, 403):
        text = "the token is not accepted" if node.token else "it wants a token: set one"
        return Finding("token", False, text)
    if answer.status != 200:
        return Finding("token", False, operation_error(node.name, answer).message)
    if not node.token:
        return Finding("token", None, "it asks for none")
    if is_in_clear(client.endpoint):
        return Finding("token", None, "it is accepted, but travels in clear: use https")
    return Finding("token", True, "it is accepted")


async def version(client: Client) -> Finding:
    """Whose build it is, and which; the oldest neurons cannot tell."""
    node = client.node
    answer = await client.fetch("GET", "/version")
    if answer.status != 200:
        return Finding("version", None, "it does not tell")
    found = shapes.read_version(answer.body)
    if found.kind not in ("", node.kind):
        text = f'it is a {found.kind} {found}: set kind = "{found.kind}"'
        return Finding("version", False, text)
    return Finding("version", True, f"{node.kind} {found}".rstrip())


def models(found: list[ModelView]) -> Finding:
    names = [f"{view.entry.id} ({view.entry.status})" for view in found[:NUM_LISTED]]
    more = [f"{len(found) - NUM_LISTED} more"] if len(found) > NUM_LISTED else []
    return Finding("models", None, ", ".join(names + more) or "none now")
