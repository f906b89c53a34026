"""Addresses as people write them: what a listener binds, what a Host or an Origin names."""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
DEFAULT_PORTS = {"http": 80, "https": 443}

AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/?#\[\]]+))(?::([0-9]{1,5}))?")
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)")


def split_address(listen: str) -> tuple[str, int]:
    """`127.0.0.1:31313` or `[::1]:0` as host and port; ValueError says what is wrong, in words."""
    found = AUTHORITY.fullmatch(listen.lower())
    if found is None or found[3] is None or int(found[3]) > 65535:
        raise ValueError(f"{listen!r} is not an address and a port, like 127.0.0.1:31313")
    return authority_name(found), int(found[3])


def ip_address(text: str) -> IpAddress | None:
    """None if `text` is a name; an IPv4 address in IPv6 clothes comes back as itself."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    address = ip_address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_among(peer: str, peers: Iterable[str]) -> bool:
    """Whether the address `peer` is one of `peers`: addresses and networks (`10.0.0.0/8`)."""
    address = ip_address(peer)
    networks = (ipaddress.ip_network(entry, strict=False) for entry in peers)
    return address is not None and any(address in network for network in networks)


def check_peers(peers: Iterable[str]) -> str | None:
    """What is wrong with a list of trusted peers, in one sentence; None if nothing is."""
    for entry in peers:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return f"{entry!r} is neither an IP address nor a network like 10.0.0.0/8"
    return None


def check_binding(
    listen: str, is_guarded: bool, allow_open: bool, needed: str = "a token"
) -> str | None:
    """What is wrong with binding `listen`, in one sentence; None if nothing is.

    An address that other machines can reach needs what is `needed`, or somebody's word that it does not.
    """
    try:
        host, _ = split_address(listen)
    except ValueError as error:
        return str(error)
    if is_loopback(host) or is_guarded or allow_open:
        return None
    return (
        f"other machines can reach {listen}: set {needed}, or `allow_open = true` if everything that "
        "can reach it may use it"
    )


def own_names(host: str, hostname: str) -> frozenset[str]:
    """What a listener bound to `host` on the machine `hostname` may be called in a Host header."""
    names = LOOPBACK_NAMES | {host}
    if is_loopback(host):
        return names
    short = hostname.lower().partition(".")[0]
    return names | {hostname.lower(), short, f"{short}.local"}


@lru_cache(maxsize=64)
def split_authority(text: str) -> tuple[str, int | None] | None:
    """The name, lower case and without brackets or a last dot, and the port of a Host header."""
    found = AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    return authority_name(found), int(found[3]) if found[3] else None


def authority_name(found: re.Match[str]) -> str:
    return one_spelling(found[1] or found[2].removesuffix("."))


@lru_cache(maxsize=1024)
def one_spelling(host: str) -> str:
    return str(ip_address(host) or host)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether the page at `origin` was served under the name and port of `host`."""
    page = ORIGIN.fullmatch(origin.lower())
    if page is None:
        return False
    default = DEFAULT_PORTS.get(page[1])
    ours, theirs = split_authority(host), split_authority(page[2])
    if default is None or ours is None or theirs is None:
        return False
    return (ours[0], ours[1] or default) == (theirs[0], theirs[1] or default)
