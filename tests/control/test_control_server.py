"""The control socket: questions and answers, and clients that misbehave."""

import grp
import json
import os
import select
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from control_fakes import FakeDaemon

from helexa.control import server as module
from helexa.control import socketfile
from helexa.control.client import NoDaemon, Refused, connect
from helexa.control.peer import Peer, group_id, may_change, peer_of
from helexa.control.server import serve
from helexa.errors import CannotBind

Ask = Callable[..., Awaitable[list[Any]]]


async def open_stream(path: Path) -> trio.SocketStream:
    stream = await trio.open_unix_socket(path)
    assert isinstance(stream, trio.SocketStream)
    return stream


async def exchange(path: Path, raw: bytes) -> list[Any]:
    """What comes back for raw bytes, until the server closes."""
    received = b""
    async with await open_stream(path) as stream:
        await stream.send_all(raw)
        async for part in stream:
            received += part
    return [json.loads(line) for line in received.splitlines()]


async def test_a_question_is_answered_item_by_item(asked: Ask) -> None:
    assert await asked("count", to=3) == [0, 1, 2]
    assert await asked("status", watch=True) == [{"version": "0.1.0", "args": True}]


async def test_a_refusal_comes_in_its_own_words(asked: Ask) -> None:
    with pytest.raises(Refused, match="no such model: ghost"):
        await asked("load", model="ghost")
    with pytest.raises(Refused, match="one mistake\nanother"):
        await asked("reload")


async def test_a_bug_is_logged_and_the_next_question_is_answered(
    asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Refused, match="internal error; see the log"):
        await asked("broken")
    assert "ZeroDivisionError" in caplog.text
    assert await asked("count", to=1) == [0]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\n", "one line of JSON"),
        (b"not json\n", "one line of JSON"),
        (b"[" * 50_000 + b"\n", "one line of JSON"),
        (b"[]\n", '{"verb"'),
        (b'{"verb": 5}\n', '{"verb"'),
        (b'{"verb": "count", "args": []}\n', '{"verb"'),
        (b'{"verb": "fly"}\n', "does not answer 'fly', but broken, count, load"),
        (b'{"verb": "count", "args": {"to": "x"}}\n', "to must be a number"),
        (b'{"verb": "count", "args": {"to": -1}}\n', "to must be a number"),
        (b'{"verb": "count", "args": {"to": NaN}}\n', "to must be a number"),
        (b'{"verb": "load"}\n', "model is missing"),
        (b'{"verb": "load", "args": {"model": 5}}\n', "model must be text"),
        (b'{"verb": "status", "args": {"watch": 1}}\n', "watch must be true or false"),
        (b"x" * 65_537, "at most 65536 bytes"),
    ],
)
async def test_what_is_no_question_is_refused_in_words(
    socket_path: Path, raw: bytes, words: str
) -> None:
    (told,) = await exchange(socket_path, raw)
    assert words in told["error"]["message"]


async def test_a_client_that_leaves_ends_what_it_asked_for(
    socket_path: Path, daemon: FakeDaemon
) -> None:
    stream = await open_stream(socket_path)
    await stream.send_all(b'{"verb": "wait"}\n')
    with trio.fail_after(5):
        await daemon.begun.wait()
        await stream.aclose()
        await daemon.ended.wait()


async def test_a_client_that_says_nothing_is_let_go(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.01)
    with trio.fail_after(5):
        assert await exchange(socket_path, b"") == []
        assert await exchange(socket_path, b'{"verb": ') == []


async def test_a_client_that_does_not_read_is_let_go_and_holds_up_nobody(
    socket_path: Path, asked: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS", 0.2)
    async with await open_stream(socket_path) as stream:
        await stream.send_all(b'{"verb": "count", "args": {"to": 1000000}}\n')
        assert await asked("count", to=2) == [0, 1]
        await trio.to_thread.run_sync(wait_for_hangup, stream.socket.fileno())
        received = b"".join([part async for part in stream])
    assert b"end" not in received


def wait_for_hangup(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # a hangup is told even if nothing is asked for
    assert poll.poll(10_000)


async def test_connections_are_bounded_and_given_back(
    socket_path: Path, asked: Ask, monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon
) -> None:
    streams = [await open_stream(socket_path) for _ in range(module.MOST_CONNECTIONS)]
    await trio.testing.wait_all_tasks_blocked()
    (told,) = await exchange(socket_path, b"")
    assert "too many control connections" in told["error"]["message"]
    for stream in streams:
        await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert await asked("count", to=1) == [0]


# -- who may -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        (Peer(1, 0, frozenset({0})), True),
        (Peer(1, 990, frozenset({990})), True),
        (Peer(1, 1000, frozenset({1000, 980})), True),
        (Peer(1, 1000, frozenset({1000, 990})), False),
        (Peer(1, 1000, frozenset()), False),
    ],
)
def test_root_the_service_and_the_group_may_change(peer: Peer, allowed: bool) -> None:
    assert may_change(peer, own_uid=990, group=980) is allowed


def test_without_the_group_only_root_and_the_service_may_change() -> None:
    assert not may_change(Peer(1, 1000, frozenset({1000})), own_uid=990, group=None)
    assert group_id("no-such-group-here") is None
    assert group_id("") is None


def test_the_kernel_tells_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_of(one) == Peer(
            os.getpid(), os.getuid(), frozenset({os.getgid(), *os.getgroups()})
        )


async def test_others_may_look_and_not_change(asked: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "peer_of", lambda _: Peer(1, 65_534, frozenset({65_534})))
    assert await asked("count", to=1) == [0]
    with pytest.raises(Refused, match="load changes what runs"):
        await asked("load", model="demo")


# -- the file ----------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def test_the_socket_is_for_owner_and_group_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "run" / "helexa.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, path, "", {})
        assert mode(path) == 0o660
        nursery.cancel_scope.cancel()
    assert not is_there(path)


def is_there(path: Path) -> bool:
    return os.path.lexists(path)


async def test_the_socket_belongs_to_the_group_that_is_named(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Anybody may give a file to a group of their own, and root to any."""
    mine = {os.getgid(), *os.getgroups()}
    gid = next(
        g.gr_gid for g in grp.getgrall() if (os.getuid() == 0 and g.gr_gid) or g.gr_gid in mine
    )
    path = tmp_path / "helexa.sock"
    await nursery.start(serve, path, grp.getgrgid(gid).gr_name, {})
    assert owner_group(path) == gid


def owner_group(path: Path) -> int:
    return path.stat().st_gid


async def test_what_a_dead_process_left_is_replaced(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "helexa.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await nursery.start(serve, path, "", {})
    (told,) = await exchange(path, b"{}\n")
    assert "error" in told


async def test_a_living_server_is_not_replaced(socket_path: Path, asked: Ask) -> None:
    with pytest.raises(CannotBind, match="another helexa answers at"):
        await serve(socket_path, "", {})
    assert await asked("count", to=1) == [0]


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    write(path, "text")
    with pytest.raises(CannotBind, match="is no socket"):
        await serve(path, "", {})
    assert read(path) == "text"


def write(path: Path, text: str) -> None:
    path.write_text(text)


def read(path: Path) -> str:
    return path.read_text()


async def test_a_place_that_cannot_be_had_is_told_in_words(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    with pytest.raises(CannotBind, match=r"cannot be made: .*; \[control\] socket names another"):
        await serve(tmp_path / "file" / "helexa.sock", "", {})


async def test_the_file_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "helexa.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, path, "", {})
        replace(path)
        nursery.cancel_scope.cancel()
    assert is_there(path)


def replace(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))


async def test_a_path_longer_than_an_address_works(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "helexa.sock"
    await nursery.start(serve, path, "", {})
    sock = await trio.to_thread.run_sync(connect, [tmp_path / "none.sock", path])
    sock.close()


def test_the_client_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    with pytest.raises(NoDaemon) as caught:
        connect([tmp_path / "none.sock", dead])
    assert f"{tmp_path}/none.sock: not there" in str(caught.value)
    assert f"{dead}: nobody listens" in str(caught.value)
    assert "helexa serve" in str(caught.value)


async def test_the_file_is_never_open_wider_than_it_will_be(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit, modes = socketfile.admit, []

    def watched(path: Path, group: int | None) -> os.stat_result:
        modes.append(mode(path))
        return admit(path, group)

    monkeypatch.setattr(socketfile, "admit", watched)
    await nursery.start(serve, tmp_path / "helexa.sock", "", {})
    assert modes == [0o600]
