"""How a node is spoken to over HTTP: where, with which headers of its own, trusting whom."""

import ssl
from urllib.parse import urlsplit

from helexa import __version__
from helexa.config.schema import RemoteNode
from helexa.http.address import is_loopback


def base_url(node: RemoteNode) -> str:
    """Without a last slash; OpenAI-style servers are often named with the /v1 that all paths have."""
    url = node.endpoint.rstrip("/")
    return url.removesuffix("/v1") if node.kind == "openai" else url


def is_in_clear(endpoint: str) -> bool:
    """Whether others on the way could read what is sent there."""
    parts = urlsplit(endpoint)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def own_headers(token: str) -> list[tuple[str, str]]:
    own = [("user-agent", f"helexa/{__version__}"), ("accept-encoding", "identity")]
    return [*own, ("authorization", f"Bearer {token}")] if token else own


def tls_context(node: RemoteNode) -> ssl.SSLContext | None:
    """Trusts the authorities in `tls_ca` alone, without one those of this host."""
    if not any(url.startswith("https:") for url in (node.endpoint, *node.inference_endpoints)):
        return None
    context = ssl.create_default_context(cafile=node.tls_ca or None)
    context.set_alpn_protocols(["http/1.1"])
    return context
