"""Getting the address of a listener: one socket, or one sentence that says why not."""

import errno
import os
import socket

import trio

from helexa.config.schema import Limits
from helexa.errors import CannotBind
from helexa.http.address import split_address

BACKLOG = 1024
SEND_BUFFER_BYTES = 2**18  # what the kernel may hold of a response that nobody reads
PROBE_AFTER_SECONDS, PROBE_EVERY_SECONDS = 60, 15  # a client that lost power says no goodbye

REASONS = {
    errno.EADDRINUSE: "another program uses this address",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "ports below 1024 need more rights",
}


async def bind(name: str, address: str, limits: Limits) -> trio.SocketListener:
    """A listening socket at `address`, whose options every accepted connection inherits.

    Raises CannotBind, which names the listener.
    """
    try:
        sock = await open_socket(*split_address(address), limits)
    except ValueError as error:
        raise CannotBind(f"The {name} cannot listen: {error}.") from None
    except OSError as error:
        raise CannotBind(f"The {name} cannot listen on {address}: {reason(error)}.") from None
    return trio.SocketListener(sock)


def reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "this name has no address"
    return REASONS.get(error.errno or 0) or os.strerror(error.errno or 0)


async def open_socket(host: str, port: int, limits: Limits) -> trio.socket.SocketType:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    sock = trio.socket.socket(family, kind, protocol)
    try:
        set_options(sock, limits)
        await sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def set_options(sock: trio.socket.SocketType, limits: Limits) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    where_there_is = {
        "TCP_KEEPIDLE": PROBE_AFTER_SECONDS,
        "TCP_KEEPINTVL": PROBE_EVERY_SECONDS,
        # The kernel ends a connection whose client takes nothing although little is on its way:
        # then no write of ours ever waits.
        "TCP_USER_TIMEOUT": int(limits.write_timeout_seconds * 1000),
    }
    for name, value in where_there_is.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def url_of(listener: trio.SocketListener, *, is_secure: bool = False) -> str:
    """How a program on this machine reaches the listener."""
    host, port = listener.socket.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if is_secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
