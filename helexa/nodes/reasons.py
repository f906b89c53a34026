"""Why a node cannot be reached, in the words of the system beneath."""

import os
import socket
import ssl
from collections.abc import Iterator

import trio

from helexa.escape import escape

LONGEST = 200


def reason(error: Exception) -> str:
    """`Connection refused`, `certificate has expired`, `it was silent for too long`, ..."""
    if isinstance(error, trio.TooSlowError):
        return "it takes too long"
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS fails: {cause.reason or cause}"
        if isinstance(cause, socket.gaierror):
            return cause.strerror or "its name is not known"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
    return escape(str(error))[:LONGEST] or "the connection broke"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Everything that `error` came from, the innermost first."""
    inner: BaseException | None = error.__cause__ or error.__context__
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from causes(each)
    if inner is not None:
        yield from causes(inner)
    yield error
