from pathlib import Path

import pytest

from helexa.config.places import expand_paths, places
from helexa.config.schema import Config, Control, Places, Server, Store
from helexa.control.paths import SERVICE_SOCKET, candidates

USER = {"HOME": "/home/ada"}
SERVICE = {"STATE_DIRECTORY": "/var/lib/helexa", "RUNTIME_DIRECTORY": "/run/helexa"}


def test_a_users_process_keeps_its_things_at_home() -> None:
    state = Path("/home/ada/.local/state/helexa")
    assert places(Config(), USER) == Places(state, state / "models", state / "helexa.sock")


def test_the_xdg_directories_are_followed() -> None:
    environ = {**USER, "XDG_STATE_HOME": "/state", "XDG_RUNTIME_DIR": "/run/user/7"}
    found = places(Config(), environ)
    assert (found.state_dir, found.socket) == (
        Path("/state/helexa"),
        Path("/run/user/7/helexa.sock"),
    )


def test_a_relative_xdg_directory_is_ignored_as_its_specification_wants() -> None:
    found = places(Config(), {**USER, "XDG_STATE_HOME": "state"})
    assert found.state_dir == Path("/home/ada/.local/state/helexa")


@pytest.mark.parametrize("directories", ["/var/lib/helexa", "/var/lib/helexa:/var/lib/other"])
def test_a_service_keeps_its_things_where_systemd_says(directories: str) -> None:
    environ = {**USER, **SERVICE, "STATE_DIRECTORY": directories, "XDG_RUNTIME_DIR": "/run/user/7"}
    state = Path("/var/lib/helexa")
    assert places(Config(), environ) == Places(state, state / "models", SERVICE_SOCKET)


def test_the_configuration_wins_and_home_is_written_out() -> None:
    config = Config(
        server=Server(state_dir="~/s"), store=Store(dir="/big"), control=Control(socket="/x.sock")
    )
    found = places(expand_paths(config, USER), {**USER, **SERVICE})
    assert found == Places(Path("/home/ada/s"), Path("/big"), Path("/x.sock"))


def test_the_client_looks_where_a_daemon_listens(tmp_path: Path) -> None:
    no_config = tmp_path / "none"
    for environ in (USER, {**USER, **SERVICE}, {**USER, "XDG_RUNTIME_DIR": "/run/user/7"}):
        assert places(Config(), environ).socket in candidates(environ, no_config)
    assert candidates(USER, no_config)[-1] == SERVICE_SOCKET


def test_the_client_follows_the_environment_and_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "helexa.toml"
    config.write_text('[control]\nsocket = "/configured.sock"\n')
    assert Path("/configured.sock") in candidates(USER, config)
    named = {**USER, "HELEXA_CONTROL__SOCKET": "~/own.sock"}
    assert candidates(named, config) == [Path("/home/ada/own.sock")]
    elsewhere = {**USER, "HELEXA_SERVER__STATE_DIR": "/elsewhere"}
    assert Path("/elsewhere/helexa.sock") in candidates(elsewhere, config)


@pytest.mark.parametrize("text", ["control = 5", "not toml", "[control]\nsocket = 5"])
def test_the_client_survives_a_configuration_that_is_wrong(tmp_path: Path, text: str) -> None:
    config = tmp_path / "helexa.toml"
    config.write_text(text)
    assert SERVICE_SOCKET in candidates(USER, config)
