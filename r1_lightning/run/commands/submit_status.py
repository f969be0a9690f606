"""What became of the submitted runs: queued, running, requeued, failed or complete, with step and last reward.

`squeue` says what is alive; the files of each run say the rest, so nothing is forgotten when SLURM forgets a job.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from r1_lightning.artefacts.file_names import CONFIG, MARKER
from r1_lightning.artefacts.steps import last_row
from r1_lightning.run.commands import slurm, submissions
from r1_lightning.run.commands.slurm import Alive
from r1_lightning.run.commands.submissions import Attempts, Submission
from r1_lightning.run.config.exit_codes import AGAIN
from r1_lightning.types.errors import require

REWARD = "rollout/reward_mean"
HEAD = ("run", "job", "state", "attempt", "step", "reward")


def status(arguments: Sequence[str]) -> str:
    """Return the table of the submitted runs below a folder, by default runs/. Raises `InvalidInput`."""
    require(len(arguments) <= 1, "status", " ".join(arguments), "it must be one folder of runs")
    root = Path(arguments[0] if arguments else "runs")
    known = submissions.read_all(root)
    if not known:
        return f"nothing was submitted from {root}"
    alive = slurm.alive(one.job for one in known)
    cells = [HEAD, *(_row(root, one, alive.get(one.job)) for one in known)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _row(root: Path, one: Submission, alive: Alive | None) -> tuple[str, ...]:
    attempts = submissions.attempts(root, one)
    run = _run_folder(root, one)
    row = last_row(run) if run else {}
    total = _max_steps(run) if run else None
    step = f"{int(row['step']) + 1}{f'/{total}' if total else ''}" if row else "-"
    reward = f"{float(row[REWARD]):.3g}" if row.get(REWARD) else "-"
    is_complete = run is not None and (run / MARKER).is_file()
    return (one.name, one.job, state_of(alive, attempts, is_complete), str(attempts.count or "-"), step, reward)


def state_of(alive: Alive | None, attempts: Attempts, is_complete: bool) -> str:
    """Return the state of a run in a few words, from what SLURM says, what the script noted, and whether the result is there."""
    if alive is not None and alive.state == "PENDING":
        return f"{'requeued' if attempts.count else 'queued'} ({alive.reason})"
    if alive is not None:
        return alive.state.lower()
    if is_complete:
        return "complete"
    if attempts.ended in AGAIN:
        return f"stopped (exit {attempts.ended}), the same submission resumes it"
    if attempts.ended is not None:
        return f"failed (exit {attempts.ended})" if attempts.ended else "ended, its shard done"
    if attempts.count:
        return "stopped without an exit code"  # killed, out of memory, a lost node
    return "cancelled before it started"


def _run_folder(root: Path, one: Submission) -> Path | None:
    found = sorted(root.glob(f"{one.stage}-*-{one.digits}*"))
    return found[-1] if found else None


def _max_steps(run: Path) -> int | None:
    try:
        steps = (yaml.safe_load((run / CONFIG).read_text(encoding="utf-8")).get("stage") or {}).get("max_steps")
    except (OSError, ValueError, yaml.YAMLError, AttributeError):
        return None
    return steps if isinstance(steps, int) else None
