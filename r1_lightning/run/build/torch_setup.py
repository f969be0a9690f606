"""Sets up torch on its device, the memory allocator and other libraries' warnings before a stage runs."""

from __future__ import annotations

import ctypes
import logging
import os
import warnings

import torch
from omegaconf import DictConfig

from r1_lightning.run.build.device import stage_device
from r1_lightning.run.config.place import place_of

# Names of glibc's <malloc.h>, for `keep_freed_memory`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def set_up_torch(threads: int | None, device: torch.device | None = None, compute: str = "fp32") -> None:
    """Use deterministic algorithms, so that one seed gives the same bits; `threads` None keeps torch's default.

    On a GPU an operator without such an algorithm raises, because flash attention's backward sums in a fixed order only where it
    must (on a CPU it warns, as all of ours have one). There, with `compute` "bf16", products that stay in FP32 use TF32.
    """
    is_gpu = device is not None and device.type == "cuda"
    torch.use_deterministic_algorithms(True, warn_only=not is_gpu)
    if is_gpu:
        fix_workspace()
        torch.set_float32_matmul_precision("high" if compute == "bf16" else "highest")
    # The switch above also fills every fresh tensor with NaN, to reveal reads of uninitialised memory: a debugging aid only.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - a module property mypy cannot see
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


def set_up_for(config: DictConfig) -> None:
    """`set_up_torch` for the stage of `config`."""
    compute = str((config.get("precision") or {}).get("compute", "fp32"))
    trainer = config.get("trainer") or {}
    threads, here = trainer.get("threads"), place_of(trainer).local_count
    if threads is None and here > 1:  # each process would take all cores
        threads = max(torch.get_num_threads() // here, 1)
    set_up_torch(threads, stage_device(config), compute)


def fix_workspace() -> None:
    """Give cuBLAS workspaces of fixed sizes, without which its sums may change their order; it reads this when CUDA starts."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


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
    for name in ("utilities.rank_zero", "accelerators.cuda"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*`isinstance\\(treespec, LeafSpec\\)`.*",
        ".*srun.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", message=text)
