"""Addresses as people write them."""

import pytest

from helexa.http.address import (
    LOOPBACK_NAMES,
    check_binding,
    check_peers,
    is_loopback,
    own_names,
    split_address,
)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:31313", ("127.0.0.1", 31313)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:0", ("::1", 0)),
        ("[0:0::1]:80", ("::1", 80)),
        ("localhost:31313", ("localhost", 31313)),
        ("Nas.Lan:1", ("nas.lan", 1)),
    ],
)
def test_an_address_is_a_host_and_a_port(listen: str, expected: tuple[str, int]) -> None:
    assert split_address(listen) == expected


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "31313",
        ":31313",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:-1",
        "127.0.0.1:65536",
        "::1:80",
        "[::1]",
        "[::1",
        "[]:1",
        "[nas]:1",
        "a b:1",
        "http://localhost:1",
    ],
)
def test_anything_else_is_refused_in_words(listen: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address and a port, like 127\.0\.0\.1:31313"):
        split_address(listen)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.20", False),
        ("localhost.evil.example", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


@pytest.mark.parametrize(
    ("listen", "token", "allow_open", "is_fine"),
    [
        ("127.0.0.1:13131", "", False, True),
        ("[::1]:13131", "", False, True),
        ("localhost:13131", "", False, True),
        ("0.0.0.0:13131", "", False, False),
        ("[::]:13131", "", False, False),
        ("192.168.1.20:13131", "", False, False),
        ("nas.lan:13131", "", False, False),
        ("0.0.0.0:13131", "s3cret", False, True),
        ("0.0.0.0:13131", "", True, True),
        ("nonsense", "s3cret", True, False),
    ],
)
def test_nothing_is_opened_to_other_machines_by_accident(
    listen: str, token: str, allow_open: bool, is_fine: bool
) -> None:
    mistake = check_binding(listen, bool(token), allow_open)
    assert (mistake is None) == is_fine
    assert mistake is None or (listen in mistake and "s3cret" not in mistake)


def test_trusted_peers_are_addresses_and_networks() -> None:
    assert check_peers(("10.0.0.7", "10.0.0.0/8", "10.0.0.1/8", "fd00::/8")) is None
    assert "'nas.lan'" in (check_peers(("10.0.0.7", "nas.lan")) or "")


def test_a_loopback_listener_has_loopback_names_only() -> None:
    assert own_names("127.0.0.1", "nas.home.example") == LOOPBACK_NAMES
    assert own_names("127.0.0.2", "nas") == LOOPBACK_NAMES | {"127.0.0.2"}


def test_an_open_listener_is_called_like_its_machine() -> None:
    names = own_names("192.168.1.20", "Nas.home.example")
    assert names == LOOPBACK_NAMES | {"192.168.1.20", "nas.home.example", "nas", "nas.local"}
