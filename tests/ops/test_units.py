"""The systemd units: valid, hardened, and in step with the program."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helexa.config.read import read_config
from helexa.config.schema import Config
from helexa.service import Exit

CONF = Path(__file__).parents[2] / "conf"
UNITS = sorted((CONF / "systemd").glob("*.service"), key=lambda unit: unit.stem)
NAMES = [unit.stem for unit in UNITS]


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if match := re.fullmatch(r"([A-Za-z]+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def needed(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is missing; it is in the package {package}")
    return found


def test_there_is_a_unit_for_each_way_to_run() -> None:
    assert NAMES == ["helexa", "helexa-gateway", "helexa-node"]


def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    verify = needed("systemd-analyze", "systemd")
    for unit in UNITS:
        text = unit.read_text()
        assert "ExecStart=/usr/bin/helexa serve\n" in text
        installed = needed("true", "coreutils")
        (tmp_path / unit.name).write_text(text.replace("/usr/bin/helexa serve", installed))
    files = [str(tmp_path / unit.name) for unit in UNITS]
    told = subprocess.run([verify, "verify", *files], capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr, told.returncode) == ("", "", 0)


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_a_unit_is_hardened_as_far_as_torch_allows(unit: Path) -> None:
    found = settings(unit)
    assert "MemoryDenyWriteExecute" not in found
    assert found["UMask"] == ["0077"]
    assert found["StateDirectoryMode"] == ["0700"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_only_one_unit_runs_on_a_machine(unit: Path) -> None:
    others = {f"{name}.service" for name in NAMES} - {unit.name}
    assert set(settings(unit)["Conflicts"][0].split()) == others


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_what_a_restart_cannot_mend_is_not_restarted(unit: Path) -> None:
    found = settings(unit)
    assert found["Restart"] == ["on-failure"]
    codes = {int(code) for code in found["RestartPreventExitStatus"][0].split()}
    assert codes == {Exit.CONFIG, Exit.STATE_IN_USE}


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_systemd_waits_longer_than_the_drain(unit: Path) -> None:
    assert float(settings(unit)["TimeoutStopSec"][0]) > 2 * Config().server.drain_seconds
    assert settings(unit)["KillMode"] == ["mixed"]


@pytest.mark.parametrize(
    ("name", "roles"),
    [("helexa", (True, True)), ("helexa-gateway", (True, False)), ("helexa-node", (False, True))],
)
def test_a_unit_runs_its_roles(name: str, roles: tuple[bool, bool], tmp_path: Path) -> None:
    environ = dict(
        line.split("=", 1)
        for line in settings(CONF / f"systemd/{name}.service").get("Environment", [])
    )
    config = read_config(None, environ, tmp_path / "none")
    assert (config.gateway.enabled, config.node.enabled) == roles


@pytest.mark.parametrize("name", ["helexa", "helexa-node"])
def test_a_node_sees_the_cards_and_keeps_what_it_compiles_to_itself(name: str) -> None:
    found = settings(CONF / f"systemd/{name}.service")
    assert "char-nvidia* rw" in found["DeviceAllow"]
    assert "PrivateDevices" not in found
    caches = dict(line.split("=", 1) for line in found["Environment"] if "%S" in line)
    assert set(caches) == {
        "XDG_CACHE_HOME",
        "HF_HOME",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "CUDA_CACHE_PATH",
    }
    assert all(path.startswith("%S/helexa/cache") for path in caches.values())


def test_the_user_and_the_group_of_the_units_are_made(tmp_path: Path) -> None:
    sysusers = needed("systemd-sysusers", "systemd")
    (tmp_path / "etc").mkdir()
    command = [sysusers, f"--root={tmp_path}", str(CONF / "sysusers/helexa.conf")]
    subprocess.run(command, capture_output=True, check=True)
    groups = {line.split(":")[0] for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert "helexa:" in (tmp_path / "etc/passwd").read_text()
    for unit in UNITS:
        found = settings(unit)
        assert {*found["User"], *found["Group"], *found["SupplementaryGroups"]} <= groups | {
            "helexa"
        }
        assert Config().control.group in found["SupplementaryGroups"]
