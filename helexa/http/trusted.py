"""Whether a request comes from the node's own fleet, where no token has shown it."""

from collections.abc import Sequence
from typing import Any

from helexa.errors import Forbidden
from helexa.http.address import is_among, is_loopback, one_spelling
from helexa.http.call import call_of


def check_trusted(request: Any, peers: Sequence[str]) -> None:
    """Forbidden unless the token was shown, or came from this host or one of `peers` for want of one."""
    client = request.scope["client"]
    address = one_spelling(client[0]) if client else ""
    is_trusted = is_loopback(address) or is_among(address, peers)
    if not (call_of(request).authenticated or is_trusted):
        raise Forbidden(
            "Only the fleet of this node may read this: set `[node] token`, or list this address in "
            "`trusted_peers`."
        )
