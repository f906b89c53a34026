"""What a device thread does once before its first work."""

import os
from contextlib import suppress
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def prepare_thread(device: str, threads: int = 0) -> None:
    """Make the calling thread the one that works on `device`; 0 threads = as many as there are cores.

    torch keeps the number of threads of an operation, and the current CUDA device, per thread.
    """
    # Without these, transformers would read checkpoints in threads of its own, which would touch
    # the device, and could fetch compiled kernels from the hub.
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    os.environ["USE_HUB_KERNELS"] = "0"
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(threads or min(torch.get_num_threads(), num_cores()))
    if device.startswith("cuda"):
        torch.cuda.set_device(device)


def num_cores(cpu_max: Path = CGROUP_CPU) -> int:
    """The cores that this process may use: its affinity, and a container's quota if there is one."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = cpu_max.read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
