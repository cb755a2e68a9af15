"""What tells one process from another, and whether it runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def host_identity() -> dict[str, str | None]:
    """What tells this machine, this boot, this container and this process from others."""
    own = _state_and_start(os.getpid())
    return {
        "name": socket.gethostname(),
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _link("/proc/self/ns/pid"),
        "process_start": None if own is None else own[1],
    }


def is_gone(pid: int, start: str) -> bool:
    """Whether a process of this machine that began at `start` provably runs no more.

    A zombie counts as gone. Where /proc hides the processes of other users (hidepid, proc(5)),
    a signal finds out whether there is one of that number.
    """
    found = _state_and_start(pid)
    if found is not None:
        state, found_start = found
        return state in "ZX" or found_start != start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """Fields 3 and 22 of /proc/pid/stat, proc(5); the second in clock ticks since boot."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
