import stat
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from helexa import records as module
from helexa.records import Record, Records, decode, encode

ONE = Record(
    request_id="req_1",
    time=1_700_000_000.5,
    account="ada",
    key="laptop",
    model="demo",
    dialect="chat",
    stream=True,
    status=200,
    seconds=1.5,
    client_request_id="mine",
    decisions=((0.0, "alias demo"), (0.1, "loaded here")),
)


def numbered(count: int, first: int = 0) -> Iterator[Record]:
    return (
        evolve(ONE, request_id=f"req_{n}", seconds=float(n)) for n in range(first, first + count)
    )


async def save(records: Records, new: list[Record]) -> None:
    """Add and let `run` write until it is cancelled."""
    async with trio.open_nursery() as nursery:
        await nursery.start(records.run)
        for record in new:
            records.add(record)
        nursery.cancel_scope.cancel()


def lengths(directory: Path) -> list[int]:
    return [len(file.read_bytes().splitlines()) for file in sorted(directory.iterdir())]


def ids(found: list[Record]) -> list[str]:
    return [record.request_id for record in found]


def test_a_record_is_one_line_and_comes_back_equal() -> None:
    line = encode(ONE)
    assert line.count(b"\n") == 1
    assert decode(line) == ONE


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_line_and_comes_back_equal(text: str) -> None:
    record = evolve(ONE, client_request_id=text, decisions=((1.0, text),))
    assert encode(record).count(b"\n") == 1
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"5", b"{}", encode(ONE)[:-20], b'{"request_id": "x"}', b"\xff"]
)
def test_a_torn_or_foreign_line_is_no_record(line: bytes) -> None:
    assert decode(line) is None


def test_a_field_of_a_newer_version_is_left_out() -> None:
    data = orjson.loads(encode(ONE))
    assert decode(orjson.dumps({**data, "mood": "fine"})) == ONE


async def test_what_is_added_is_kept_over_a_restart(tmp_path: Path) -> None:
    await save(Records.open(tmp_path), list(numbered(3)))
    again = Records.open(tmp_path)
    assert ids(again.select()) == ["req_2", "req_1", "req_0"]
    await save(again, list(numbered(2, first=3)))
    assert ids(Records.open(tmp_path).select()) == ["req_4", "req_3", "req_2", "req_1", "req_0"]


async def test_what_is_added_is_on_disk_soon_and_not_only_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved, token = Records._save, trio.Event(), trio.lowlevel.current_trio_token()

    def save_and_tell(self: Records, batch: list[Record]) -> None:
        save(self, batch)
        token.run_sync_soon(saved.set)

    monkeypatch.setattr(Records, "_save", save_and_tell)
    records = Records.open(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(records.run)
        records.add(ONE)
        with trio.fail_after(5):
            await saved.wait()
        assert Records.open(tmp_path).select() == [ONE]
        nursery.cancel_scope.cancel()


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    await save(Records.open(tmp_path), [ONE])
    assert stat.S_IMODE((tmp_path / "requests.jsonl").stat().st_mode) == 0o600


async def test_a_line_that_a_crash_tore_costs_only_itself(tmp_path: Path) -> None:
    await save(Records.open(tmp_path), list(numbered(2)))
    file = tmp_path / "requests.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    again = Records.open(tmp_path)
    assert ids(again.select()) == ["req_0"]
    await save(again, list(numbered(1, first=7)))
    assert ids(Records.open(tmp_path).select()) == ["req_7", "req_0"]


async def test_the_files_are_rotated_and_the_last_requests_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    for start in range(0, 45, 5):
        await save(Records.open(tmp_path), list(numbered(5, first=start)))
    assert lengths(tmp_path) == [10, 5]
    kept = ids(Records.open(tmp_path).select(limit=100))
    assert kept == [f"req_{n}" for n in range(44, 34, -1)]


async def test_a_disk_that_fails_is_logged_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path / "missing")
    await save(records, [ONE])
    assert "request records not saved" in caplog.text
    assert records.find("req_1") == ONE


def test_memory_holds_the_last_ten_thousand(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for record in numbered(module.KEPT + 5):
        records.add(record)
    assert len(records.select(limit=99_999)) == module.KEPT
    assert records.find("req_4") is None


# -- asking ------------------------------------------------------------------------------------------


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(tmp_path)
    records.add(evolve(ONE, request_id="slow", seconds=9.0))
    records.add(evolve(ONE, request_id="failed", status=503, code="rate_limit_exceeded"))
    records.add(evolve(ONE, request_id="broke off", code="service_unavailable", seconds=5.0))
    records.add(evolve(ONE, request_id="other", key="phone", account="eve"))
    return records


def test_the_newest_come_first_up_to_the_limit(records: Records) -> None:
    assert ids(records.select(limit=2)) == ["other", "broke off"]


def test_the_slowest_are_found_among_all(records: Records) -> None:
    assert ids(records.select(slow=True, limit=2)) == ["slow", "broke off"]


def test_a_stream_that_ended_with_an_error_has_failed_too(records: Records) -> None:
    assert ids(records.select(failed=True)) == ["broke off", "failed"]


def test_those_of_one_key_or_account(records: Records) -> None:
    assert ids(records.select(key="phone")) == ["other"]
    assert ids(records.select(key="eve")) == ["other"]
    assert records.select(key="nobody") == []


def test_filters_add_up(records: Records) -> None:
    assert ids(records.select(slow=True, failed=True, key="laptop")) == ["broke off", "failed"]


def test_one_request_is_found_by_our_id_or_the_clients(records: Records) -> None:
    found = records.find("slow")
    assert found is not None
    assert found.decisions == ONE.decisions
    newest = records.find("mine")
    assert newest is not None
    assert newest.request_id == "other"
    assert records.find("unknown") is None
