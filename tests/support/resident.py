"""Resident memory of a stage's steps in a process of its own: `python -m tests.support.resident OVERRIDE...` prints two numbers.

They are what the dry run says of the most memory at one time, and by how much the process's largest resident set (Linux) grew
while the stage trained, after a small run of the same stage had loaded every library. Run it with MALLOC_MMAP_THRESHOLD_ set
low: else glibc keeps freed memory for later, a fifth to a half more, which is nobody's tensor.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KIB = 1024
GIVEN_BACK_FROM = 65_536  # bytes: blocks of this size go back to the system as soon as they are freed
SMALL = {
    "grpo": ("rollout.prompts_per_rollout=4", "rollout.group_size=2"),
    "pretrain": ("data.rows_per_batch=2",),
}


def estimated_and_measured(stage: str, *overrides: str) -> tuple[int, int]:
    """Bytes that the dry run says of `stage`, and bytes that a fresh process took."""
    command = [sys.executable, "-m", "tests.support.resident", stage, *overrides]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(GIVEN_BACK_FROM)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    estimated, measured = done.stdout.splitlines()[-1].split()
    return int(estimated), int(measured)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * KIB


def _train(config: Any) -> None:
    from r1_lightning.run.build.parts import build_parts
    from r1_lightning.run.config.inject import inject
    from tests.support.miniature import trainer

    parts = build_parts(config, None)
    if "generate" in parts:
        parts["generate"].eos_id = -1  # nobody ends early: completions at their limit, as the dry run counts them
    module, data = inject(config.stage, parts), inject(config.data, parts)
    with tempfile.TemporaryDirectory() as folder:
        steps = getattr(data, "micro_batches", 1)
        trainer(config.stage.max_steps, Path(folder), accumulate_grad_batches=steps).fit(module, data)


def main(stage: str, *overrides: str) -> None:
    """Print estimated and measured bytes."""

    from r1_lightning.run.config.compose import compose_stage, composing
    from r1_lightning.run.config.stage_config import resolved
    from r1_lightning.run.cost.stage_cost import EmptyStage

    def config_of(*more: str) -> Any:
        return resolved(compose_stage([f"stage={stage}", "stage.max_steps=1", *overrides, *more]).config)

    with composing():
        _train(config_of(*SMALL[stage]))
        before = _status("VmRSS")
        _train(config_of())
        print(EmptyStage.of(config_of(), None).peak_bytes(), _status("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
