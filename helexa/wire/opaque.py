"""Text that a client carries back unread: `encrypted_content` in Responses, `signature` in Messages.

It is wrapped, not encrypted: what it holds came from the client's own conversation and goes to nobody
else.  It lets a client that stores nothing here replay what the model thought.
"""

import base64

PREFIX = "hlx1."


def wrap(text: str) -> str:
    return PREFIX + base64.urlsafe_b64encode(text.encode()).decode()


def unwrap(content: str) -> str | None:
    """The text; None if another server wrapped it, or it is damaged."""
    if not content.startswith(PREFIX):
        return None
    try:
        return base64.b64decode(
            content.removeprefix(PREFIX), altchars=b"-_", validate=True
        ).decode()
    except ValueError:
        return None
