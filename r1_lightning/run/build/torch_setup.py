"""How a process sets up torch, its memory allocator and the warnings of others before a stage runs."""

from __future__ import annotations

import ctypes
import logging
import warnings

import torch

# Names of glibc's <malloc.h>, for `keep_freed_memory`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def set_up_torch(threads: int | None) -> None:
    """Deterministic algorithms only, so that the same seed gives the same bits; `threads` None leaves torch's choice."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The switch above also writes NaN into every fresh tensor, to show reads of memory never written: a test, not a need.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - a module property mypy cannot see
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Have glibc keep what tensors free instead of handing it back: touching fresh pages again costs a tenth of a step.

    Nothing happens with another C library. Tensors above 32 MiB are handed back in any case.
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
