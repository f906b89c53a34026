"""The doctor's report."""

import argparse
from pathlib import Path

import pytest

from helexa.config.schema import Config, Places
from helexa.devices import doctor
from helexa.devices.build import TorchBuild, installed_torch
from helexa.devices.doctor import Finding, render

USABLE = Finding("GPU 0: RTX 3090", "usable", "24576 MB")
CPU = Finding("CPU: Ryzen", "usable", "32768 MB")
BAD = Finding("GPU 1: GTX 1080", "no_kernels", "8192 MB", "Install another torch.")
PLACES = Places(Path("/state"), Path("/store"), Path("/socket"))


def test_a_finding_is_a_line_its_facts_and_what_to_do() -> None:
    assert render([USABLE, BAD]) == (
        "GPU 0: RTX 3090: usable\n"
        "    24576 MB\n"
        "GPU 1: GTX 1080: no kernels for this card\n"
        "    8192 MB\n"
        "    -> Install another torch.\n"
        "\n"
        "helexa uses 1 GPU.\n"
    )


def test_without_a_usable_card_everything_works_on_the_cpu() -> None:
    assert "everything works there" in render([BAD, CPU])


def test_without_torch_nothing_can_be_served_here() -> None:
    assert "a gateway needs none of this" in render([Finding("CPU: Ryzen", "no_torch")])


def test_names_cannot_steer_the_terminal() -> None:
    assert "\\x1b[2J" in render([Finding("GPU 0: \x1b[2J", "usable")])


@pytest.mark.parametrize(("findings", "code"), [([CPU], 0), ([USABLE, CPU], 0), ([BAD, CPU], 1)])
def test_the_exit_code_tells_whether_something_is_left_unused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[Finding],
    code: int,
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda settings: findings)
    assert doctor.run(argparse.Namespace(), Config(), PLACES) == code
    assert capsys.readouterr().out == render(findings)


def test_this_machines_cpu_is_examined() -> None:
    findings = doctor.examine(torch=lambda: TorchBuild("2.13.0+cpu", None))
    cpu = [finding for finding in findings if finding.subject.startswith("CPU: ")]
    assert [finding.verdict for finding in cpu] == ["usable"]


def test_a_machine_without_torch_is_told_how_to_get_it() -> None:
    findings = doctor.examine(torch=lambda: None)
    assert any("pip install 'helexa[node]'" in finding.advice for finding in findings)


def test_the_installed_torch_is_read() -> None:
    torch = pytest.importorskip("torch")
    build = installed_torch()
    assert build is not None
    assert build.version == torch.__version__
