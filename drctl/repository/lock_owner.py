"""Which process wrote a lock, and whether it has surely ended.

A host name and a pid, all that restic's locks tell, name a process only within one host: two
containers called `backup-0` share both, and one would take the other's living lock away.
Invariant: "ended" is said only of a process of this very boot and pid namespace.
"""

from __future__ import annotations

import os


def mark_of_this_process() -> str:
    """Boot, pid namespace and start of this process; empty where the system does not tell."""
    try:
        return f"{_space()}:{_start_of(os.getpid())}"
    except (OSError, ValueError):
        return ""


def has_ended(mark: str, pid: int) -> bool:
    """Whether the process of that mark and pid is known to have ended. One that merely has its pid
    is another process."""
    space, _, start = mark.rpartition(":")
    try:
        if not start or space != _space():
            return False
        return _start_of(pid) != start
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def _space() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()}:{os.stat('/proc/self/ns/pid').st_ino}"


def _start_of(pid: int) -> str:
    """Field 22 of stat(5), clock ticks after boot; the name before it may hold anything."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        state, *fields = file.read().rpartition(b")")[2].split()
    if state == b"Z":
        raise FileNotFoundError(f"/proc/{pid}: a zombie has ended")
    return fields[18].decode()
