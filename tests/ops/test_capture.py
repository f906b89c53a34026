import json
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from helexa import capture as module
from helexa.capture import Capture


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    return Capture(tmp_path / "captures")


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_nothing_is_captured_that_nobody_asked_for(capture: Capture) -> None:
    assert not capture.active("laptop", 0.0)


def test_a_window_is_for_one_key_and_ends_by_itself(capture: Capture) -> None:
    capture.open("laptop", 600, now=100.0)
    assert capture.active("laptop", 699.9)
    assert not capture.active("phone", 100.0)
    assert not capture.active("laptop", 700.0)
    assert not capture.active("laptop", 100.0)


def test_a_window_can_be_closed_and_is_never_longer_than_a_day(capture: Capture) -> None:
    capture.open("laptop", 1e9, now=0.0)
    assert capture.active("laptop", 86_399.0)
    assert not capture.active("laptop", 86_400.0)
    capture.open("laptop", 600, now=0.0)
    capture.close("laptop")
    assert not capture.active("laptop", 0.0)


async def test_requests_and_answers_of_an_open_window_are_written(
    capture: Capture, autojump_clock: trio.testing.MockClock
) -> None:
    path = capture.open("laptop", 600, trio.current_time())
    await capture.write("laptop", "req_1", "request", {"messages": []})
    await capture.write("laptop", "req_1", "answer", b"Paris")
    await capture.write("phone", "req_2", "request", "not this one")
    await trio.sleep(600)
    await capture.write("laptop", "req_3", "request", "too late")
    assert [(e["request_id"], e["kind"], e["body"]) for e in entries(path)] == [
        ("req_1", "request", {"messages": []}),
        ("req_1", "answer", "Paris"),
    ]


async def test_the_file_is_for_its_owner_alone_also_if_it_was_there(capture: Capture) -> None:
    path = capture.open("laptop", 600, trio.current_time())
    path.chmod(0o644)
    await capture.write("laptop", "req_1", "request", "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_link_is_not_followed(capture: Capture, tmp_path: Path) -> None:
    path = capture.open("laptop", 600, 0.0)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        capture.open("laptop", 600, 0.0)


@pytest.mark.parametrize("key", ["../../etc/passwd", "a/b", "", "\x00", "x" * 500, "\ud800", "é"])
def test_any_key_has_a_file_of_its_own_inside_the_directory(capture: Capture, key: str) -> None:
    paths = {capture.open(name, 600, 0.0) for name in (key, key + "_", "laptop")}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {capture.open("laptop", 1, 0.0).parent}


async def test_a_file_that_grows_too_large_ends_the_window(
    capture: Capture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 200)
    path = capture.open("laptop", 600, trio.current_time())
    await capture.write("laptop", "req_1", "request", "small")
    await capture.write("laptop", "req_2", "request", "x" * 200)
    assert not capture.active("laptop", trio.current_time())
    assert "capture ended" in caplog.text
    assert len(entries(path)) == 1
