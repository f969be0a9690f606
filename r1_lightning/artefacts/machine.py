"""The machine that finished a run: its time depends on it, and no result does, so it stands apart from the versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
GIB = 2**30


def machine() -> dict[str, str]:
    """Return the processor, the cores that this process may use, memory, torch's threads, and the GPUs if there are any."""
    found = {"processor": _processor(), "cores": str(_cores()), "threads": str(torch.get_num_threads())}
    if memory := _memory():
        found["memory"] = f"{memory / GIB:.1f} GiB"
    if torch.cuda.is_available():
        found["gpus"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return found


def _processor() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    """Bytes of memory of the machine; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
