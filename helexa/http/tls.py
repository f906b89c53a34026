"""The certificate of a listener, read again without a restart."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import trio
from attrs import define, field

from helexa import logs
from helexa.config.schema import Config
from helexa.http.transport import Secure, Transport

log = logs.get("helexa.http")


@define(eq=False)
class Certificate:
    """A chain and its key, as PEM files.  Raises OSError or ssl.SSLError if they do not fit."""

    cert: Path
    key: Path
    _context: ssl.SSLContext = field(init=False)

    @_context.default
    def _read(self) -> ssl.SSLContext:
        return server_context(self.cert, self.key)

    def __call__(self, stream: trio.SocketStream) -> Transport:
        return Secure(stream, self._context)

    async def reload(self) -> None:
        """Serve new connections with what the files hold now, or go on with what they held."""
        try:
            self._context = await trio.to_thread.run_sync(server_context, self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            log.error("certificate not reloaded", file=str(self.cert), reason=str(error))
        else:
            log.info("certificate reloaded", file=str(self.cert))


Certificates = Mapping[str, Certificate]  # by listener, of those that speak TLS


def certificates(config: Config) -> Certificates:
    return {
        name: Certificate(Path(settings.tls_cert), Path(settings.tls_key))
        for name, settings in (("gateway", config.gateway), ("node", config.node))
        if settings.enabled and settings.tls_cert
    }


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["http/1.1"])
    return context
