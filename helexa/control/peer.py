"""Who is at the other end of the control socket, from the kernel, and what they may do."""

import grp
import socket
import struct
from typing import Protocol

from attrs import frozen

CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
SO_PEERGROUPS = 59  # Linux 4.13; not in Python's socket module
MOST_GROUPS = 256  # Python asks for at most 1024 bytes


class Socket(Protocol):
    """A socket of the standard library or of Trio."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


@frozen
class Peer:
    """A process as it was when it connected."""

    pid: int
    uid: int
    gids: frozenset[int]


def peer_of(sock: Socket) -> Peer:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, gid = CREDENTIALS.unpack(credentials)
    return Peer(pid, uid, frozenset({gid, *supplementary(sock)}))


def supplementary(sock: Socket) -> tuple[int, ...]:
    """The groups of the peer's process; none where the kernel does not tell."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MOST_GROUPS)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


def may_change(peer: Peer, own_uid: int, group: int | None) -> bool:
    """Root, the service's own user and the administrators' group may; others only look."""
    return peer.uid in (0, own_uid) or group in peer.gids


def group_id(name: str) -> int | None:
    """None for a group that this machine does not have."""
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        return None
