"""A run of several processes speaks with one voice: rank 0 prints; the others are silent unless something happens to them alone.

An error is mostly found by all processes at once. The others keep theirs back for `LATER_S` seconds: by then whoever started them
(our starter, torchrun, `srun --kill-on-bad-exit`) has ended them, and the line stands there once. A process that only lost another
one waits longer (`LOST_LATER_S`), rank 0 too: the error of the one that failed is told first, and is the run's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from r1_lightning.run.config.place import STARTED, TORCHRUN, Place

LATER_S = 20.0  # a process that has told its error may take seconds to leave, on a busy machine
LOST_LATER_S = 2 * LATER_S
TORCH_LOG = "TORCH_CPP_LOG_LEVEL"  # torch's C++ part prints its advice (on DDP's options) past Python


class Lost(RuntimeError):
    """Another process of the run has ended, or has been silent for too long; the message is one line."""


@contextmanager
def speaking(place: Place) -> Iterator[None]:
    """Throw away what this process prints inside the block, unless it is rank 0. Enter it before torch is imported."""
    if place.count > 1:
        os.environ.setdefault(TORCH_LOG, "ERROR")
    if place.is_main:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def is_another(place: Place, environment: Mapping[str, str] = os.environ) -> bool:
    """True in another rank than 0, also before there was a configuration to say which (`place` is then `ALONE`)."""
    started = STARTED in environment or TORCHRUN in environment
    return not place.is_main or (started and environment.get("RANK", "0") != "0")
