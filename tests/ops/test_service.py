import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from helexa.errors import CannotBind, ConfigError, DevicePoisoned, GaveUp, StateInUse
from helexa.service import (
    Exit,
    Notifier,
    ending,
    file_limit_warning,
    keep_alive,
    raise_file_limit,
    watchdog_seconds,
)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("", errors)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["x"]), 2),
        (CannotBind("x"), 3),
        (GaveUp("x"), 4),
        (DevicePoisoned("x"), 5),
        (StateInUse("x"), 6),
        (RuntimeError("x"), 1),
        (KeyboardInterrupt(), 0),
        (group(group(CannotBind("x"))), 3),
        (group(KeyboardInterrupt(), KeyboardInterrupt()), 0),
        (group(KeyboardInterrupt(), RuntimeError()), 1),
        (group(GaveUp("x"), DevicePoisoned("y")), 5),
        (caused(GaveUp("x"), DevicePoisoned("y")), 5),
        (caused(GaveUp("x"), ExceptionGroup("", [DevicePoisoned("y")])), 5),
        (caused(GaveUp("x"), RuntimeError("y")), 4),
    ],
)
def test_every_end_has_its_exit_code(error: BaseException, code: int) -> None:
    assert ending(error)[0] == code


def test_the_error_that_decides_the_code_is_the_reason() -> None:
    poisoned = DevicePoisoned("illegal address")
    assert ending(group(RuntimeError("x"), caused(GaveUp("y"), poisoned)))[1] is poisoned
    crash = group(RuntimeError("x"), KeyError("y"))
    assert ending(crash)[1] is crash


def test_causes_in_a_circle_are_looked_through_once() -> None:
    first, second = RuntimeError("first"), GaveUp("second")
    caused(first, caused(second, ExceptionGroup("", [first, second])))
    assert ending(first) == (Exit.GAVE_UP, second)
    assert ending(caused(first, first))[0] is Exit.CRASHED


@pytest.fixture
def file_limit() -> Iterator[int]:
    """The hard limit; the soft one is lower for the length of the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_are_opened_as_are_allowed(file_limit: int) -> None:
    assert raise_file_limit() == file_limit
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == file_limit
    assert raise_file_limit() == file_limit


@pytest.mark.parametrize(
    ("max_connections", "max_files", "is_fine"),
    [
        (1024, 3 * 1024 + 64, True),
        (1024, 3 * 1024 + 63, False),
        (10**9, resource.RLIM_INFINITY, True),
    ],
)
def test_connections_that_there_are_no_files_for_are_told(
    max_connections: int, max_files: int, is_fine: bool
) -> None:
    warning = file_limit_warning(max_connections, max_files)
    assert (warning is None) == is_fine
    assert warning is None or f"may open {max_files}" in warning


def test_the_codes_are_those_that_units_rely_on() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "STOPPED": 0,
        "CRASHED": 1,
        "CONFIG": 2,
        "CANNOT_BIND": 3,
        "GAVE_UP": 4,
        "DEVICE_POISONED": 5,
        "STATE_IN_USE": 6,
    }


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Notifier, socket.socket]]:
    """A notifier and the socket on which systemd would listen to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        name = f"@helexa-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "n")
        receiving.bind(name.replace("@", "\0", 1))
        receiving.settimeout(5)
        yield Notifier.from_environ({"NOTIFY_SOCKET": name}), receiving


def test_systemd_hears_of_every_turn(systemd: tuple[Notifier, socket.socket]) -> None:
    notifier, receiving = systemd
    assert notifier.ready("serving\nhere")
    assert receiving.recv(999) == b"READY=1\nSTATUS=serving here"
    assert notifier.reloading()
    first, second = receiving.recv(999).splitlines()
    assert first == b"RELOADING=1"
    assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0
    assert notifier.stopping(30.5)
    assert receiving.recv(999) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=30500000"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket", "@nobody-listens-here"])
def test_without_systemd_nothing_happens(address: str) -> None:
    assert not Notifier(address).ready()


def test_a_systemd_that_does_not_listen_holds_up_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(str(tmp_path / "n"))
        notifier = Notifier(str(tmp_path / "n"))
        assert not all(notifier.alive() for _ in range(10_000))


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environ, pid=7) == seconds


async def test_the_watchdog_is_fed_while_the_loop_turns(
    systemd: tuple[Notifier, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    notifier, receiving = systemd
    async with trio.open_nursery() as nursery:
        await nursery.start(keep_alive, notifier, 30.0)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert [receiving.recv(99) for _ in range(4)] == [b"WATCHDOG=1"] * 4
