"""What was submitted, as files beside the runs: one folder per run, which every attempt and every process of it finds again.

    ROOT/slurm/<stage>-<digits of the fingerprint>/     its run is ROOT/<stage>-...-<the same digits>
        submission.json         the job's number, the commands, the time
        job.sh                  the script that was submitted          slurm-JOB.txt    SLURM's own messages
        log-JOB-ATTEMPT.txt     what an attempt printed                latest.txt       a link to the newest of them
        attempts.txt            a line when an attempt starts, and one when it ends, with the exit code
        fresh.txt               with fresh=true: the folder that the first attempt made, and the others resume
    ROOT/slurm/code/<digits>/   the code that the jobs run, or the option files of their --config-dir

No torch here: `r1 submit status` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from r1_lightning.artefacts.files import write_json
from r1_lightning.run.commands.sbatch import ATTEMPTS

FOLDER, CODE = "slurm", "code"
SUBMISSION, SCRIPT = "submission.json", "job.sh"


@dataclass(frozen=True)
class Submission:
    """One run that was submitted: `name` is STAGE-DIGITS, `job` SLURM's number ("12", or "12_0" in an array)."""

    name: str
    stage: str
    digits: str
    job: str
    words: tuple[str, ...]
    submitted: str


@dataclass(frozen=True)
class Attempts:
    """What the script has noted: the number of attempts of the latest job, and how the last one ended."""

    count: int = 0
    ended: int | None = None  # the exit code, if it has ended
    is_requeued: bool = False


def folder_of(root: Path, name: str) -> Path:
    """The folder of the submissions of one run."""
    return root / FOLDER / name


def write(root: Path, name: str, stage: str, digits: str, job: str, words: Sequence[str]) -> None:
    """Note that `job` makes the run; it replaces the note on an earlier submission, whose logs stay."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    submission = Submission(name, stage, digits, job, tuple(words), now)
    write_json(folder_of(root, name) / SUBMISSION, asdict(submission))


def read(folder: Path) -> Submission | None:
    """Return the submission noted in `folder`; None if there is none, or the note cannot be read."""
    try:
        record = json.loads((folder / SUBMISSION).read_text(encoding="utf-8"))
        fields = {key: str(record[key]) for key in ("name", "stage", "digits", "job", "submitted")}
        return Submission(words=tuple(map(str, record["words"])), **fields)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_all(root: Path) -> list[Submission]:
    """Return all submissions below `root`, oldest first."""
    found = [read(path.parent) for path in sorted((root / FOLDER).glob(f"*/{SUBMISSION}"))]
    return sorted((one for one in found if one is not None), key=lambda one: one.submitted)


def attempts(root: Path, submission: Submission) -> Attempts:
    """Return what the latest job of `submission` has noted of its attempts."""
    try:
        text = (folder_of(root, submission.name) / ATTEMPTS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Attempts()
    rows = [words for line in text.splitlines() if len(words := line.split()) >= 4 and words[0] == submission.job]
    if not rows:
        return Attempts()
    count = max(int(words[1]) for words in rows if words[1].isdigit())
    event, last = rows[-1][3], rows[-1][-1]
    ended = int(last) if event == "ended" and last.isdigit() else None
    return Attempts(count, ended, event == "requeued")
