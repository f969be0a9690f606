"""Limits how long torch's threads spin while they wait for each other. OpenMP reads the limit once, when torch is loaded.

Two threads split every large operator and meet in a barrier after it. The first one there spins for a while before it sleeps.
GNU OpenMP (the library in torch's Linux wheels) spins for milliseconds by default. That is harmless on an idle machine, but on a
busy one the spinning thread holds the core that the late thread needs, and small operators take many times as long. A short limit
keeps nearly all of the speed on an idle machine, since most barriers end within it, and frees the cores of a busy one
(`python benchmarks/busy.py`; the table is in `benchmarks/README.md`).

This module imports only the standard library: a command calls `bound_spinning` before anything imports torch.
"""

from __future__ import annotations

import os

SPIN_COUNT_VARIABLE = "GOMP_SPINCOUNT"
SPIN_COUNT = 2_000
# A user who sets one of these has chosen how threads wait.
WAIT_VARIABLES = (SPIN_COUNT_VARIABLE, "OMP_WAIT_POLICY")


def bound_spinning() -> None:
    """Let OpenMP's threads spin for at most `SPIN_COUNT` turns, unless the environment sets it.

    Has no effect once torch is loaded, or with another OpenMP library than GNU's.
    """
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ[SPIN_COUNT_VARIABLE] = str(SPIN_COUNT)
