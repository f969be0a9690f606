"""Pre-empts the jobs of a SLURM of one machine at moments, in the ways that a SLURM has, and says how each went."""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.slurm.cluster import Cluster
from tests.support.slurm.preempted import FOLDER, Moment, events

LIMIT_S = 300  # of a wait for a job: a process imports torch first, on a busy machine in a minute
WAYS: dict[str, Callable[[str], list[str]]] = {
    "signal before the time limit": lambda job: ["scancel", "--signal=USR1", job],
    "scontrol requeue": lambda job: ["scontrol", "requeue", job],
    "job that goes first": lambda job: [
        *("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    ],
}
# A phase: its name, the function at whose calls a task stands still, what has called that, and up to which call.
Phase = tuple[str, str, str, int]


def drawn(phases: Sequence[Phase], rng: random.Random) -> list[Moment]:
    """A moment inside each of `phases`, in the same order."""
    return [
        Moment(number, name, function, within, rng.randint(1, calls), rng.randrange(2), rng.uniform(0.0, longest_s))
        for number, (name, function, within, calls) in enumerate(phases)
        for longest_s in (0.2 if function else 6.0,)
    ]


class Striking:
    """Pre-empts the jobs below `root` at moments; `folder` is where their tasks note what they hear."""

    def __init__(self, slurm: Cluster, root: Path, folder: Path) -> None:
        self.slurm, self.root, self.folder = slurm, root, folder
        folder.mkdir()

    def words(self) -> list[str]:
        """What makes the tasks of a job stand still."""
        python = self.folder / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.support.slurm.preempted "$@"\n')
        python.chmod(0o755)
        return [f"launcher.python={python}", f"+launcher.env.{FOLDER}={self.folder}"]

    def strike(self, moment: Moment, way: str) -> dict[str, Any]:
        """Wait until a task is at `moment`, pre-empt its job, wait for the end of the attempt; returns how it went."""
        at = self._event(lambda one: one["event"] == "reached" if moment.function else one["event"] == "begun", moment)
        time.sleep(moment.pause_s)
        job, attempt, asked_s = at["job"], at["attempt"], time.monotonic()
        said = self.slurm.call(*WAYS[way](job))
        assert said.returncode == 0, said.stderr
        stage = self._wait_for_end(job, attempt, moment)
        ended_s = time.monotonic()
        mine = [one for one in events(self.folder) if (one["job"], one["attempt"]) == (job, attempt)]
        heard = {one["task"]: one for one in reversed(mine) if one["event"] == "heard"}
        left_s = {one["task"]: one["clock_s"] for one in mine if one["event"] == "left"}
        took_s = [left_s[task] - one["clock_s"] for task, one in heard.items() if task in left_s]
        places = {task: (one["stack"] or ["importing"])[0] for task, one in sorted(heard.items())}
        return {
            **{"pre-emption": moment.number + 1, "by": way, "stage": stage, "phase": moment.name, "call": moment.call},
            **{"task that stood still": moment.task if moment.function else ""},
            **{f"task {task} was in": places.get(task, "not listening yet") for task in (0, 1)},
            "seconds from signal to end of task": f"{max(took_s):.2f}" if took_s else "",
            "seconds from order to end of attempt": f"{ended_s - asked_s:.2f}",
        }

    def _event(self, fits: Callable[[dict[str, Any]], bool], moment: Moment) -> dict[str, Any]:
        end_s = time.monotonic() + 2 * LIMIT_S
        while True:
            found = [one for one in events(self.folder) if fits(one) and one["number"] == moment.number]
            if found:
                return found[0]
            assert time.monotonic() < end_s and self.slurm.call("squeue", "-h").stdout.strip(), (moment, self.logs())
            time.sleep(0.05)

    def _wait_for_end(self, job: str, attempt: int, moment: Moment) -> str:
        """Wait until the script has noted the end of the attempt; returns the stage of its folder."""
        end_s = time.monotonic() + LIMIT_S
        while True:
            for path in self.root.glob("slurm/*/attempts.txt"):
                for words in map(str.split, path.read_text().splitlines()):
                    if words[:2] == [job, str(attempt)] and words[3] != "started":
                        assert words[3:] == ["requeued"] or words[4] in ("75", "138", "143"), (words, self.logs())
                        return path.parent.name.partition("-")[0]
            assert time.monotonic() < end_s, (moment, self.logs())
            time.sleep(0.02)

    def attempts(self) -> int:
        """How many attempts of all jobs have started."""
        return sum(path.read_text().count(" started ") for path in self.root.glob("slurm/*/attempts.txt"))

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.root.glob("slurm/*/latest.txt")))


def preempted(
    slurm: Cluster,
    submitted: Callable[..., tuple[int, str]],
    root: Path,
    words: Sequence[str],
    moments: Sequence[Moment],
    rng: random.Random,
) -> list[dict[str, Any]]:
    """Submit `words`, pre-empt the jobs at each of `moments`, and wait for their end; returns how it went, a row for each."""
    striking = Striking(slurm, root, root.parent / "moments")
    moments[0].write(striking.folder)
    code, said = submitted(*words, f"paths.root={root}", *striking.words())
    assert code == 0, said
    ways = [way for _ in moments for way in rng.sample(list(WAYS), len(WAYS))]
    found = []
    for moment, way in zip(moments, ways, strict=False):
        moment.write(striking.folder)
        found.append(striking.strike(moment, way))
    Moment(-1, "none", "", "", 1, 0).write(striking.folder)
    jobs = re.findall(r"^[a-z_]+-[0-9a-f]{10}: job (\d+)", said, re.M)
    for job in jobs:
        assert slurm.wait_for(job, ("COMPLETED", "FAILED", "CANCELLED"), LIMIT_S)["JobState"] == "COMPLETED", (
            striking.logs()
        )
    assert striking.attempts() == len(moments) + len(jobs), (
        "each attempt was pre-empted once, or is the last of its job"
    )
    return found
