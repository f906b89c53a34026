"""The verbs over logs, records and captures."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from helexa.capture import Capture
from helexa.control.protocol import Args
from helexa.control.server import Verb
from helexa.control.verbs import capture_verb, logs_verb, requests_verb, why_verb
from helexa.errors import InvalidRequest, NotFound
from helexa.logs import Ring
from helexa.records import Record, Records

ONE = Record(
    request_id="req_1",
    time=1.0,
    account="ada",
    key="laptop",
    model="demo",
    dialect="chat",
    stream=False,
    status=200,
    seconds=1.0,
    decisions=((0.1, "loaded here"),),
)


async def all_of(verb: Verb, **args: Any) -> list[Any]:
    items = [item async for item in verb.handle(Args(args))]
    json.dumps(items)
    return items


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(tmp_path)
    for number in range(30):
        records.add(evolve(ONE, request_id=f"req_{number}", seconds=float(-number)))
    return records


async def test_the_last_lines_are_told() -> None:
    ring = Ring(8)
    for number in range(5):
        ring.add({"event": str(number)})
    told = await all_of(logs_verb(ring), lines=2)
    assert told == [{"event": {"event": "3"}}, {"event": {"event": "4"}}]
    assert len(await all_of(logs_verb(ring))) == 5


async def follow(ring: Ring, told: list[Any]) -> None:
    items: AsyncGenerator[Any, None]
    async with aclosing(logs_verb(ring).handle(Args({"follow": True, "lines": 0}))) as items:
        async for item in items:
            told.append(item)


async def test_following_tells_every_new_line_also_from_threads(nursery: trio.Nursery) -> None:
    ring = Ring(8)
    told: list[Any] = []
    nursery.start_soon(follow, ring, told)
    await trio.testing.wait_all_tasks_blocked()
    ring.add({"event": "here"})
    await trio.to_thread.run_sync(ring.add, {"event": "in a thread"})
    await trio.testing.wait_all_tasks_blocked()
    assert [item["event"]["event"] for item in told] == ["here", "in a thread"]


async def test_a_reader_that_is_too_slow_loses_lines_and_is_told(nursery: trio.Nursery) -> None:
    ring = Ring(4)
    told: list[Any] = []
    nursery.start_soon(follow, ring, told)
    await trio.testing.wait_all_tasks_blocked()
    for number in range(10):
        ring.add({"event": str(number)})
    await trio.testing.wait_all_tasks_blocked()
    assert told[0] == {"lost": 6}
    assert len(told) == 5


async def test_a_reader_that_left_is_not_woken_any_more() -> None:
    ring = Ring(4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, ring, [])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ring._wakers == frozenset()


def test_a_line_after_the_end_of_trio_hurts_nobody() -> None:
    ring = Ring(4)

    async def leave_a_watcher() -> None:
        generator = logs_verb(ring).handle(Args({"follow": True, "lines": 0}))
        with trio.move_on_after(0):
            await generator.__anext__()

    trio.run(leave_a_watcher)
    ring.add({"event": "late"})


async def test_requests_are_told_without_their_decisions(records: Records) -> None:
    told = await all_of(requests_verb(records))
    assert [record["request_id"] for record in told] == [f"req_{n}" for n in range(29, 9, -1)]
    assert "decisions" not in told[0]
    (slowest,) = await all_of(requests_verb(records), slow=True, limit=1)
    assert slowest["request_id"] == "req_0"
    assert await all_of(requests_verb(records), key="phone") == []


async def test_one_request_is_told_with_its_decisions(records: Records) -> None:
    (told,) = await all_of(why_verb(records), request_id="req_7")
    assert told["decisions"] == ((0.1, "loaded here"),)


async def test_a_request_that_is_not_known_is_told_in_words(records: Records) -> None:
    with pytest.raises(NotFound, match="no finished request 'req_99'"):
        await all_of(why_verb(records), request_id="req_99")


async def test_a_capture_tells_where_it_writes_and_ends_at_zero(tmp_path: Path) -> None:
    verb, capture = capture_verb(made := Capture(tmp_path / "captures")), made
    assert verb.changes
    (told,) = await all_of(verb, key="laptop", seconds=600)
    assert str(tmp_path / "captures") in told["message"]
    assert capture.active("laptop", trio.current_time())
    await all_of(verb, key="laptop", seconds=0)
    assert not capture.active("laptop", trio.current_time())


async def test_a_capture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    verb = capture_verb(Capture(tmp_path / "missing" / "captures"))
    with pytest.raises(InvalidRequest, match="nothing can be captured"):
        await all_of(verb, key="laptop")
