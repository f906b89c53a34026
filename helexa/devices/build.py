"""What the installed torch was built for.  Importing torch takes seconds, so only on request."""

from attrs import frozen


@frozen
class TorchBuild:
    version: str
    cuda: tuple[int, int] | None  # the CUDA it was built with, None for a CPU build
    architectures: tuple[str, ...] = ()  # "sm_86", "compute_120"; empty where torch does not tell


def installed_torch() -> TorchBuild | None:
    """The torch of this environment, None without one."""
    try:
        import torch
    except ImportError:
        return None
    return TorchBuild(
        version=str(torch.__version__),
        cuda=version(torch.version.cuda),
        architectures=tuple(torch.cuda.get_arch_list()),
    )


def version(text: str | None) -> tuple[int, int] | None:
    """ "13.0" as (13, 0)."""
    if not text:
        return None
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
