"""Listeners that speak TLS, with certificates made for the test."""

import ssl
from pathlib import Path

import pytest
import trio
import trustme
from http_peer import Served, Start
from trio.testing import MockClock

from helexa.config.schema import Limits
from helexa.http.tls import Certificate


class Authority:
    """Writes certificates for localhost to `folder`; `trusted` is what its clients believe."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self._ca = trustme.CA()
        self.trusted = ssl.create_default_context()
        self._ca.configure_trust(self.trusted)
        self.issue()

    def issue(self) -> None:
        issued = self._ca.issue_cert("localhost")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.cert.write_bytes(chain)
        self.key.write_bytes(issued.private_key_pem.bytes())

    def certificate(self) -> Certificate:
        return Certificate(self.cert, self.key)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def served(start: Start, authority: Authority) -> Served:
    return await start(certificate=authority.certificate())


async def test_requests_and_answers_go_through_tls(served: Served, authority: Authority) -> None:
    assert served.url.startswith("https://")
    peer = await served.connect_securely(authority.trusted)
    body = b'"' + b"x" * 300_000 + b'"'
    assert (await peer.ask("POST /echo", body=body)).body == body
    reply = await peer.ask("GET /hello")
    assert (reply.status, reply.json) == (200, {"hello": "world"})


async def test_a_client_that_speaks_no_tls_is_closed(served: Served) -> None:
    peer = await served.connect()
    await peer.send(b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await peer.rest()


async def test_a_client_that_leaves_ends_its_request(served: Served, authority: Authority) -> None:
    peer = await served.connect_securely(authority.trusted)
    await peer.send(b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await served.seen.started.wait()
    await trio.aclose_forcefully(peer.stream)
    await served.seen.ended.wait()
    assert served.seen.how == ["cancelled"]


async def test_draining_ends_an_idle_connection(served: Served, authority: Authority) -> None:
    peer = await served.connect_securely(authority.trusted)
    await peer.ask("GET /hello")
    served.drain.set()
    await served.ended.wait()
    assert await peer.is_closed()


async def test_who_never_shakes_hands_is_closed_in_time(
    virtual_time: MockClock, start: Start, authority: Authority
) -> None:
    limits = Limits(idle_body_seconds=5)
    served = await start(limits=limits, certificate=authority.certificate())
    peer = await served.connect()
    began_at = trio.current_time()
    assert await peer.is_closed()
    assert trio.current_time() - began_at >= 5


async def test_excess_clients_are_turned_away_in_tls(start: Start, authority: Authority) -> None:
    limits = Limits(max_connections=1)
    served = await start(limits=limits, certificate=authority.certificate())
    first = await served.connect_securely(authority.trusted)
    await first.ask("GET /hello")
    second = await served.connect_securely(authority.trusted)
    assert (await second.reply()).status == 503


async def test_a_renewed_certificate_serves_those_who_come_after(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    certificate = authority.certificate()
    served = await start(certificate=certificate)
    early = await served.connect_securely(authority.trusted)
    other = Authority(tmp_path)
    await certificate.reload()
    late = await served.connect_securely(other.trusted)
    with pytest.raises(trio.BrokenResourceError):
        await served.connect_securely(authority.trusted)
    assert (await early.ask("GET /hello")).status == (await late.ask("GET /hello")).status == 200


async def test_files_that_do_not_fit_change_nothing(start: Start, authority: Authority) -> None:
    certificate = authority.certificate()
    served = await start(certificate=certificate)
    authority.key.write_text("not a key")
    await certificate.reload()
    assert (
        await (await served.connect_securely(authority.trusted)).ask("GET /hello")
    ).status == 200
