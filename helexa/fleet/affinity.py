"""Which nodes a session prefers: rendezvous hashing, so that a node more or less moves few sessions."""

from collections.abc import Iterable
from hashlib import blake2b


def preferred(session: str, nodes: Iterable[str]) -> list[str]:
    """The nodes in the session's own order; the same whatever other nodes there are."""
    return sorted(nodes, key=lambda node: (rank(session, node), node))


def rank(session: str, node: str) -> bytes:
    words = f"{session}\0{node}".encode(errors="surrogatepass")
    return blake2b(words, digest_size=8).digest()
