"""Sets up torch, the memory allocator and other libraries' warnings before a stage runs."""

from __future__ import annotations

import ctypes
import logging
import warnings

import torch

# Names of glibc's <malloc.h>, for `keep_freed_memory`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def set_up_torch(threads: int | None) -> None:
    """Use deterministic algorithms, so that one seed gives the same bits; `threads` None keeps torch's default."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The switch above also fills every fresh tensor with NaN, to reveal reads of uninitialised memory: a debugging aid only.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - a module property mypy cannot see
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system: page faults on fresh memory cost a tenth of a step.

    Does nothing with another C library. The memory of tensors above 32 MiB is returned in any case.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # naming one threshold ends glibc's own adjusting of both


def silence_warnings() -> None:
    """Hide Lightning's advice (workers, TPUs, tips) from the terminal; other warnings stay."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*`isinstance\\(treespec, LeafSpec\\)`.*",
        ".*srun.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", message=text)
