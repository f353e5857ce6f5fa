"""Facts about the machine that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine_facts(work: Path) -> dict[str, str | int]:
    """Processor, memory, kernel, Python, and the file system measured on."""
    return {
        "processor": _value("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count() or 0,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
        "file_system": _file_system(work),
        "load_before": f"{os.getloadavg()[0]:.2f}",
        "page_cache": "warm",
    }


def _value(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """The type of the mount point that is nearest above."""
    mounts = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        mounts[point] = kind
    place = path.resolve()
    while str(place) not in mounts:
        place = place.parent
    return f"{mounts[str(place)]} at {place}"
