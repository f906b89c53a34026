"""A machine made of files: the few of /proc, /sys and /etc that the devices are read from."""

from pathlib import Path


class Machine:
    """Writes files under a root; a second write of the same file changes the machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/sys/kernel/hostname", "beast\n")
        self.write("proc/sys/kernel/osrelease", "6.12.0-amd64\n")
        self.write("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n')
        self.write("proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD Ryzen 9 7950X\n")
        self.memory(total_mb=32768, used_mb=8192, own_mb=512)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def memory(self, *, total_mb: int, used_mb: int, own_mb: int) -> None:
        available = (total_mb - used_mb) << 10
        self.write("proc/meminfo", f"MemTotal: {total_mb << 10} kB\nMemAvailable: {available} kB\n")
        self.write("proc/self/status", f"RssAnon:\t{own_mb << 10} kB\nRssShmem:\t0 kB\n")

    def card(self, slot: str, vendor: str = "0x10de", kind: str = "0x030000") -> None:
        """A PCI device; by default a VGA controller of NVIDIA's."""
        self.write(f"sys/bus/pci/devices/{slot}/vendor", f"{vendor}\n")
        self.write(f"sys/bus/pci/devices/{slot}/class", f"{kind}\n")

    def cgroup_v2(self, path: str, **files: int | str) -> None:
        """One cgroup; `memory_max=...` writes memory.max."""
        self._cgroup(f"sys/fs/cgroup{path}", files)

    def cgroup_v1(self, path: str, **files: int | str) -> None:
        self._cgroup(f"sys/fs/cgroup/memory{path}", files)

    def _cgroup(self, folder: str, files: dict[str, int | str]) -> None:
        for name, value in files.items():
            self.write(f"{folder}/{name.replace('memory_', 'memory.')}", f"{value}\n")
