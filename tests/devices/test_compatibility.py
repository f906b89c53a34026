"""Which torch runs on which card under which driver."""

import pytest

from helexa.devices.build import TorchBuild, version
from helexa.devices.compatibility import Verdict, advice, judge, runs_on

CU126 = TorchBuild("2.10.0+cu126", (12, 6), ("sm_50", "sm_60", "sm_70", "sm_75", "sm_86", "sm_90"))
CU130 = TorchBuild("2.13.0+cu130", (13, 0), ("sm_75", "sm_80", "sm_86", "sm_90", "sm_120"))
CU130_PTX = TorchBuild("2.13.0+cu130", (13, 0), ("sm_75", "sm_120", "compute_120"))
CPU = TorchBuild("2.13.0+cpu", None)


@pytest.mark.parametrize(
    ("torch", "driver", "capability", "verdict"),
    [
        (None, (13, 0), (8, 6), "no_torch"),
        (CPU, (13, 0), (8, 6), "cpu_only_torch"),
        (CU130, (13, 0), (8, 6), "usable"),
        (CU130, (13, 2), (8, 6), "usable"),
        (CU130, (12, 8), (8, 6), "driver_too_old"),
        (CU126, (12, 0), (8, 6), "usable"),  # minor version compatibility
        (CU126, (13, 0), (8, 6), "usable"),  # an old program on a new driver
        (CU126, (11, 4), (8, 6), "driver_too_old"),
        (CU130, (13, 0), (8, 9), "usable"),  # Ada runs Ampere's kernels
        (CU130, (13, 0), (6, 1), "no_kernels"),
        (CU126, (12, 4), (6, 1), "usable"),
        (CU130, (13, 0), (12, 1), "usable"),
        (CU126, (13, 0), (12, 0), "no_kernels"),
        (CU130, (13, 0), (13, 0), "no_kernels"),
        (CU130_PTX, (13, 0), (13, 0), "usable"),  # compiled from PTX
        (TorchBuild("2.13.0", (13, 1), ("compute_75",)), (13, 0), (8, 6), "no_kernels"),
        (TorchBuild("2.13.0", (13, 0), ()), (13, 0), (8, 6), "usable"),  # torch does not tell
    ],
)
def test_the_first_obstacle_is_named(
    torch: TorchBuild | None, driver: tuple[int, int], capability: tuple[int, int], verdict: Verdict
) -> None:
    assert judge(torch, driver, capability) == verdict


@pytest.mark.parametrize(
    ("architecture", "capability", "runs"),
    [
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_86", (9, 0), False),
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("sm_100f", (10, 3), True),
        ("sm_100f", (12, 0), False),
        ("sm_120", (12, 1), True),
        ("compute_80", (9, 0), True),
        ("compute_90", (8, 6), False),
        ("compute_90a", (10, 0), False),
        ("compute_100f", (12, 0), False),
        ("gfx1100", (8, 6), False),
    ],
)
def test_kernels_run_where_nvidia_says_they_run(
    architecture: str, capability: tuple[int, int], runs: bool
) -> None:
    assert runs_on(architecture, capability, may_compile_ptx=True) is runs


def test_ptx_needs_a_driver_as_new_as_the_toolkit() -> None:
    assert not runs_on("compute_80", (9, 0), may_compile_ptx=False)


@pytest.mark.parametrize(
    ("verdict", "torch", "driver", "capability", "words"),
    [
        ("no_torch", None, (13, 0), (8, 6), "pip install 'helexa[node]'"),
        ("cpu_only_torch", CPU, (12, 8), (8, 6), "install a build for CUDA 12"),
        ("driver_too_old", CU130, (12, 8), (8, 6), "update the driver (580 or newer)"),
        ("driver_too_old", CU126, (11, 4), (8, 6), "update the driver (525 or newer)"),
        ("no_kernels", CU130, (13, 0), (6, 1), "whl/cu126"),
        ("no_kernels", CU126, (13, 0), (12, 0), "install a newer torch"),
    ],
)
def test_every_obstacle_comes_with_what_to_do(
    verdict: Verdict,
    torch: TorchBuild | None,
    driver: tuple[int, int],
    capability: tuple[int, int],
    words: str,
) -> None:
    assert words in advice(verdict, torch, driver, capability)


def test_a_usable_card_needs_no_advice() -> None:
    assert advice("usable", CU130, (13, 0), (8, 6)) == ""


@pytest.mark.parametrize(("text", "pair"), [("13.0", (13, 0)), ("12.6.3", (12, 6)), (None, None)])
def test_torchs_cuda_version_is_read(text: str | None, pair: tuple[int, int] | None) -> None:
    assert version(text) == pair
