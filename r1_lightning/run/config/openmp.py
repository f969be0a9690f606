"""How long torch's threads wait for each other by spinning: set here, because OpenMP reads it once, when torch is loaded.

Two threads split every large operator and meet in a barrier after it. The one that comes first spins for a while before it sleeps.
GNU OpenMP (the library in torch's Linux wheels) spins for milliseconds by default. That is harmless on an idle machine, and ruinous
on a busy one: the spinning thread holds the core that the late thread needs, and small operators take many times as long. A short
bound keeps nearly all of the speed on a calm machine, since most barriers end within it, and lets a busy machine's
cores go (`python benchmarks/busy.py`; the table stands in `benchmarks/README.md`).

This module imports nothing but the standard library: a command calls `bound_spinning` before anything imports torch.
"""

from __future__ import annotations

import os

SPIN_COUNT_VARIABLE = "GOMP_SPINCOUNT"
SPIN_COUNT = 2_000
# Whoever sets one of these has chosen how threads wait.
WAIT_VARIABLES = (SPIN_COUNT_VARIABLE, "OMP_WAIT_POLICY")


def bound_spinning() -> None:
    """Let OpenMP's threads spin for at most `SPIN_COUNT` turns, unless the environment says otherwise.

    Has no effect once torch is loaded, and none with another OpenMP library than GNU's.
    """
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ[SPIN_COUNT_VARIABLE] = str(SPIN_COUNT)
