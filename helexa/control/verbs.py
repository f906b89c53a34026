"""The verbs that read logs and records and open capture windows; the others belong to their owners."""

import time
from collections.abc import AsyncGenerator
from contextlib import suppress

import trio

from helexa.capture import LONGEST_SECONDS, Capture
from helexa.control.protocol import Args, Json
from helexa.control.server import Verb
from helexa.errors import InvalidRequest, NotFound
from helexa.logs import RING_LINES, Ring
from helexa.records import KEPT, Records, as_json


class Bell:
    """Wakes one task; may be rung from any thread, also after Trio has ended."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._rung = trio.Event()

    def ring(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._set, idempotent=True)

    def _set(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        await self._rung.wait()
        self._rung = trio.Event()


def logs_verb(ring: Ring) -> Verb:
    """`logs`: the last `lines`, then with `follow` every new one until the client leaves."""

    async def handle(args: Args) -> AsyncGenerator[Json, None]:
        number = max(0, ring.end - int(args.number("lines", 100, RING_LINES)))
        follow, bell = args.flag("follow"), Bell()
        stop = ring.watch(bell.ring)
        try:
            while True:
                lines, number, lost = ring.since(number)
                if lost:
                    yield {"lost": lost}
                for event in lines:
                    yield {"event": event}
                if not follow:
                    return
                await bell.wait()
        finally:
            stop()

    return Verb("logs", changes=False, handle=handle)


def requests_verb(records: Records) -> Verb:
    """`requests`: the newest records, or with `slow` the slowest; `failed` and `key` narrow it."""

    async def handle(args: Args) -> AsyncGenerator[Json, None]:
        found = records.select(
            slow=args.flag("slow"),
            failed=args.flag("failed"),
            key=args.optional_text("key"),
            limit=int(args.number("limit", 20, KEPT)),
        )
        for record in found:
            yield {name: value for name, value in as_json(record).items() if name != "decisions"}

    return Verb("requests", changes=False, handle=handle)


def why_verb(records: Records) -> Verb:
    """`why`: one record with its decision log."""

    async def handle(args: Args) -> AsyncGenerator[Json, None]:
        wanted = args.text("request_id")
        record = records.find(wanted)
        if record is None:
            raise NotFound(
                f"no finished request {wanted[:80]!r} among the last {KEPT}; one that still runs is "
                "recorded when it ends",
                param="request_id",
            )
        yield as_json(record)

    return Verb("why", changes=False, handle=handle)


def capture_verb(capture: Capture) -> Verb:
    """`capture`: keep prompts and answers of `key` for `seconds`; 0 ends it."""

    async def handle(args: Args) -> AsyncGenerator[Json, None]:
        key, seconds = args.text("key"), args.number("seconds", 600, LONGEST_SECONDS)
        if seconds == 0:
            capture.close(key)
            yield {"message": f"{key} is not captured any more"}
            return
        try:
            path = capture.open(key, seconds, trio.current_time())
        except OSError as error:
            raise InvalidRequest(f"nothing can be captured: {error.strerror}") from None
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
        yield {"message": f"requests and answers of {key} are written to {path} until {until}"}

    return Verb("capture", changes=True, handle=handle)
