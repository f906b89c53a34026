import io
import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from helexa import logs
from helexa.escape import escape
from helexa.log_lines import LONGEST_VALUE
from helexa.logs import Ring, configure

Log = Callable[..., io.StringIO]

pytestmark = pytest.mark.usefixtures("own_logging")

HOSTILE = "a\nb\r\x1b[2J\x00\x7f\x85\u2028\u202e\ud800"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def json_of(stream: io.StringIO) -> dict[str, Any]:
    (line,) = lines_of(stream)
    told: dict[str, Any] = json.loads(line)
    return told


def test_an_event_is_one_line_for_a_person() -> None:
    configure("info", "human", {}, stream := io.StringIO())
    logs.get("helexa.node").info("model loaded", model="x", seconds=1.25, devices=[0, 1], why="a b")
    (line,) = lines_of(stream)
    assert line.partition(" ")[2] == (
        'info    node: model loaded  model=x  seconds=1.25  devices=[0, 1]  why="a b"'
    )


def test_an_event_is_one_line_of_json_for_a_program() -> None:
    configure("info", "json", {}, stream := io.StringIO())
    logs.get("helexa.node").warning("model lost", model="x", reason=None)
    told = json_of(stream)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "warning",
        "logger": "helexa.node",
        "event": "model lost",
        "model": "x",
        "reason": None,
    }


@pytest.mark.parametrize("form", ["human", "json"])
def test_control_characters_are_escaped_everywhere(form: logs.Format) -> None:
    configure("info", form, {}, stream := io.StringIO())
    logs.get(f"helexa.{HOSTILE}").info(HOSTILE, **{HOSTILE: HOSTILE, "list": [HOSTILE]})
    (line,) = lines_of(stream)
    assert line.isprintable()
    assert "a\\nb" in line


@given(st.text(st.characters()))
def test_what_is_escaped_is_one_line_that_utf8_can_carry(text: str) -> None:
    safe = escape(text)
    safe.encode()
    assert len(safe.splitlines()) <= 1
    assert "\x1b" not in safe


def test_what_is_plain_stays_as_it_is() -> None:
    assert escape("Grüße, 東京 🙂 \\n") == "Grüße, 東京 🙂 \\n"


async def test_the_request_in_hand_is_named_on_every_line_of_its_task() -> None:
    configure("info", "json", {}, stream := io.StringIO())
    log = logs.get("helexa.test")

    async def request(name: str) -> None:
        logs.request_id.set(name)
        await trio.to_thread.run_sync(log.info, "in a thread")
        log.info("in the task")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(request, "req_1")
        nursery.start_soon(request, "req_2")
    log.info("outside")
    told = [json.loads(line).get("request_id") for line in lines_of(stream)]
    assert sorted(told[:-1]) == ["req_1", "req_1", "req_2", "req_2"]
    assert told[-1] is None


def test_a_field_cannot_pose_as_the_line_itself() -> None:
    configure("info", "json", {}, stream := io.StringIO())
    logs.get("helexa.test").info("real", level="forged", logger="forged", time="forged")
    told = json_of(stream)
    assert (told["event"], told["level"], told["logger"]) == ("real", "info", "helexa.test")
    assert told["level_"] == "forged"


def test_an_exception_is_told_with_its_frames() -> None:
    configure("info", "json", {}, stream := io.StringIO())
    try:
        raise ValueError("it broke\x1b")
    except ValueError:
        logs.get("helexa.test").exception("actor crashed", actor="node")
    told = json_of(stream)
    assert "test_logs.py" in told["traceback"]
    assert told["traceback"].endswith("ValueError: it broke\x1b")


def test_an_exception_stands_below_its_line_for_a_person() -> None:
    configure("info", "human", {}, stream := io.StringIO())
    logs.get("helexa.test").exception("actor crashed", ValueError("it broke\x1b[2J"))
    first, *below = lines_of(stream)
    assert first.endswith("test: actor crashed")
    assert below == ["    ValueError: it broke\\x1b[2J"]


def test_a_long_value_is_cut() -> None:
    configure("info", "json", {}, stream := io.StringIO())
    logs.get("helexa.test").exception("x" * 9999, ValueError("y" * 9999), long="z" * 9999)
    assert len(stream.getvalue()) < 3 * LONGEST_VALUE + 500


def test_values_of_every_kind_can_be_logged() -> None:
    configure("info", "json", {}, stream := io.StringIO())
    odd = {"a": {1: {2}}, "b": (1.00000001, None), "c": object, "d": ValueError("x"), "e": b"y"}
    logs.get("helexa.test").info("odd", **odd)
    assert json_of(stream)["b"] == [1.0, None]


def test_levels_below_the_configured_one_are_left_out() -> None:
    configure("warning", "json", {}, stream := io.StringIO())
    logs.get("helexa.test").info("quiet")
    logs.get("helexa.test").warning("loud")
    assert json_of(stream)["event"] == "loud"


def test_other_packages_are_heard_from_warnings_on_in_the_same_form() -> None:
    configure("debug", "json", {}, stream := io.StringIO())
    logging.getLogger("hypercorn").info("quiet")
    logging.getLogger("hypercorn").warning("loud %s\n", "\x1b")
    assert json_of(stream)["event"] == "loud \x1b\n"


@pytest.mark.parametrize("variable", ["JOURNAL_STREAM", "INVOCATION_ID"])
def test_under_systemd_lines_are_json_unless_somebody_watches(variable: str) -> None:
    shown = {}
    for name, stream in {"pipe": io.StringIO(), "terminal": Terminal()}.items():
        configure("info", "auto", {variable: "x"}, stream)
        logs.get("helexa.test").info("hello")
        shown[name] = stream.getvalue()
    assert shown["pipe"].startswith("{")
    assert not shown["terminal"].startswith("{")


def test_elsewhere_lines_are_for_people() -> None:
    configure("info", "auto", {}, stream := io.StringIO())
    logs.get("helexa.test").info("hello")
    assert not stream.getvalue().startswith("{")


def test_the_journal_is_told_how_grave_a_line_is() -> None:
    receiving, sending = os.pipe()
    with os.fdopen(receiving) as reader, os.fdopen(sending, "w") as stream:
        status = os.fstat(sending)
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        configure("info", "auto", environ, stream)
        logs.get("helexa.test").error("it broke")
        assert reader.readline().startswith('<3>{"time"')


def test_a_stream_that_is_gone_hurts_nobody() -> None:
    stream = io.StringIO()
    ring = configure("info", "human", {}, stream)
    stream.close()
    logs.get("helexa.test").info("hello")
    assert ring.end == 1


# -- the ring ----------------------------------------------------------------------------------------


def test_the_ring_gives_what_is_new_and_where_to_go_on() -> None:
    ring = Ring(8)
    assert ring.since(0) == ([], 0, 0)
    for number in range(3):
        ring.add({"n": number})
    assert ring.since(1) == ([{"n": 1}, {"n": 2}], 3, 0)
    assert ring.since(3) == ([], 3, 0)
    assert ring.since(99) == ([], 3, 0)


def test_a_slow_reader_is_told_how_many_lines_it_lost() -> None:
    ring = Ring(4)
    for number in range(10):
        ring.add({"n": number})
    assert ring.since(3) == ([{"n": n} for n in range(6, 10)], 10, 3)


def test_watchers_are_woken_until_they_stop() -> None:
    ring, woken = Ring(4), []
    stop = ring.watch(lambda: woken.append(ring.end))
    ring.add({})
    stop()
    ring.add({})
    assert woken == [1]


def test_the_ring_survives_many_writers_and_a_reader() -> None:
    ring = configure("info", "json", {}, io.StringIO())
    log = logs.get("helexa.test")
    start = threading.Barrier(5)

    def write() -> None:
        start.wait()
        for number in range(500):
            log.info("line", number=number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    number = seen = 0
    while any(thread.is_alive() for thread in threads) or number < ring.end:
        lines, number, lost = ring.since(number)
        seen += len(lines) + lost
    assert seen == ring.end == 2000


def test_any_name_can_be_a_field() -> None:
    configure("info", "json", {}, stream := io.StringIO())
    logs.get("helexa.test").exception("real", None, **{"event": 1, "error": 2, "self": 3})
    told = json_of(stream)
    assert (told["event"], told["event_"], told["error"]) == ("real", 1, 2)
