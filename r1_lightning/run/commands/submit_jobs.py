"""The jobs of a submission: one for each stage that is missing, inputs first, and an array where several runs are asked for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.locks import exclusive_lock, is_held
from r1_lightning.run.commands import slurm, submissions
from r1_lightning.run.commands.code_copy import copy_code, copy_configs
from r1_lightning.run.commands.sbatch import FRESH, LATEST, Job, Task, render
from r1_lightning.run.commands.submit_points import Point
from r1_lightning.run.config.program import command_line
from r1_lightning.run.config.slurm import Slurm
from r1_lightning.run.graph.fresh import begun_by
from r1_lightning.run.graph.node import Node, stages_of
from r1_lightning.types.errors import InvalidInput, require


@dataclass(frozen=True)
class Wanted:
    """A stage to be made by a job, with the words that make it and the inputs that other jobs make before.

    One that is `fresh` is made anew, whatever is there.
    """

    name: str
    node: Node
    words: tuple[str, ...]
    inputs: tuple[str, ...]
    fresh: bool = False


def submit_points(points: Sequence[Point], is_dry: bool) -> str:
    """Submit what is missing of `points`, or with `is_dry` only show the scripts; returns what to print. Raises `InvalidInput`."""
    first = points[0]
    for point in points:
        is_one = _shared(point) == _shared(first)
        allowed = "the runs of a sweep share one, with the same paths.root, processes and fresh"
        require(is_one, "launcher", point.launcher, allowed)
    jobs = _Jobs(first, is_dry)
    with ExitStack() as stack:
        if not is_dry:  # two people who submit the same run at the same moment
            stack.enter_context(exclusive_lock(first.root / submissions.FOLDER))
        return jobs.submit_all(points)


def _shared(point: Point) -> tuple[Slurm, Path, int, bool]:
    return point.launcher, point.root, point.processes_per_node, point.fresh


class _Jobs:
    """The jobs of one submission, inputs first."""

    def __init__(self, first: Point, is_dry: bool) -> None:
        self.launcher, self.root, self.is_dry = first.launcher, first.root, is_dry
        self.processes_per_node, self.configs = first.processes_per_node, first.configs
        self.flags: tuple[str, ...] = ()  # of every job, before its words
        self.numbers: dict[str, str] = {}  # job by the name of the run that it makes
        self.submitted: list[str] = []
        self.lines: list[str] = []

    def submit_all(self, points: Sequence[Point]) -> str:
        """Submit what is missing; returns the lines to print."""
        inputs, targets = _wanted(points, self.launcher.job_per_stage)
        targets = {name: target for name, target in targets.items() if not self._is_made(target)}
        if not targets:
            return "\n".join(self.lines)
        for wanted in targets.values():
            self._refuse_second(wanted)
        needed = {name for target in targets.values() for name in _needs(target, inputs)}
        code = self._code()
        for name, wanted in inputs.items():
            if name in needed and not self._is_alive(name):
                self._submit([wanted], code)
        self._submit(list(targets.values()), code)
        return "\n".join([*self.lines, *self._last_words(targets)])

    def _code(self) -> Path:
        """Copy the code, and the user's folder of options if there is one; returns the copied code."""
        copies = self.root / submissions.FOLDER / submissions.CODE
        if self.configs is not None:
            copy = copies / "CONFIGS" if self.is_dry else copy_configs(copies, self.configs, self.root)
            self.flags = (f"--config-dir={copy}",)
        return copies / "COPY" if self.is_dry else copy_code(copies)

    def _is_made(self, target: Wanted) -> bool:
        found = None if target.fresh else target.node.found()
        if found is not None and found.complete:
            self.lines.append(f"{target.name}: complete, nothing to submit: {found.folder}")
            return True
        return False

    def _refuse_second(self, wanted: Wanted) -> None:
        """Raise `InvalidInput` if a job or a process is alive that makes the run."""
        if self.is_dry:
            return
        own = submissions.folder_of(self.root, wanted.name)
        known = submissions.read(own)
        state = slurm.alive([known.job]).get(known.job) if known else None
        if known and state:
            allowed = f"job {known.job} ({state.state}) makes it already; `scancel {known.job}` ends it"
            raise InvalidInput(f"submit={wanted.name!r} is not allowed: {allowed}")
        found = begun_by(wanted.node, own / FRESH) if wanted.fresh else wanted.node.found()
        if found is not None and is_held(found.folder):
            raise InvalidInput(f"submit={wanted.name!r} is not allowed: a process is at work in {found.folder}")

    def _is_alive(self, name: str) -> bool:
        """True if a job of an earlier submission makes the input `name`: this one waits for it."""
        known = None if self.is_dry else submissions.read(submissions.folder_of(self.root, name))
        if known is None or known.job not in slurm.alive([known.job]):
            return False
        self.numbers[name] = known.job
        self.lines.append(f"{name}: job {known.job} makes it already")
        return True

    def _submit(self, wanted: Sequence[Wanted], code: Path) -> None:
        names = [one.name for one in wanted]
        folders = {one.name: submissions.folder_of(self.root, one.name) for one in wanted}
        after = sorted({self.numbers[name] for one in wanted for name in one.inputs if name in self.numbers})
        tasks = tuple(Task(folders[one.name], ("train", *self.flags, *one.words)) for one in wanted)
        fresh = any(one.fresh for one in wanted)
        python = self.launcher.python or sys.executable
        name = f"r1-{names[0]}" if len(names) == 1 else f"r1-{names[0]}-and-{len(names) - 1}-more"
        text = render(Job(name, self.launcher, tasks, code, Path.cwd(), python, self.processes_per_node, fresh))
        script = folders[names[0]] / submissions.SCRIPT
        if self.is_dry:
            self.numbers |= {name: f"JOB-OF-{name}" for name in names}
            self.lines += [f"# {shlex.join(slurm.command_of(script, after))}", text]
            return
        for one in wanted:
            folder = folders[one.name]
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / submissions.SCRIPT, text)
            if one.fresh:
                self._begin_anew(one, folder / FRESH)
        number = slurm.submit(script, after)
        self.submitted.append(number)
        for index, one in enumerate(wanted):
            job = number if len(wanted) == 1 else f"{number}_{index}"
            self.numbers[one.name] = job
            digits = one.node.fingerprint[:SHORT_DIGITS]
            submissions.write(self.root, one.name, one.node.stage.stage, digits, job, one.words)
            self.lines.append(f"{one.name}: job {job}" + (f", after {', '.join(after)}" if after else ""))

    def _begin_anew(self, one: Wanted, note: Path) -> None:
        """Let the job make its run anew, unless the run that the last submission began is still to be finished."""
        begun = begun_by(one.node, note)
        if begun is not None and not begun.complete:
            self.lines.append(f"{one.name}: goes on with {begun.folder}, which the last submission began anew")
        else:
            note.unlink(missing_ok=True)

    def _last_words(self, targets: dict[str, Wanted]) -> list[str]:
        if self.is_dry:
            return []
        log = submissions.folder_of(self.root, next(iter(targets))) / LATEST
        return [
            "",
            f"follow  tail -F {shlex.quote(str(log))}",
            f"status  {command_line('submit')} status {shlex.quote(str(self.root))}",
            f"cancel  scancel {' '.join(self.submitted)}",
        ]


def _wanted(points: Sequence[Point], job_per_stage: bool) -> tuple[dict[str, Wanted], dict[str, Wanted]]:
    """Return the missing inputs, each before what needs it, and the targets, by name. `InvalidInput` for a target named twice."""
    inputs: dict[str, Wanted] = {}
    targets: dict[str, Wanted] = {}
    for point in points:
        name = _name(point.node)
        require(name not in targets, "submit", name, "two runs of the sweep are the same")
        targets[name] = Wanted(name, point.node, point.words, _inputs(point.node), point.fresh)
        for node in stages_of(point.node) if job_per_stage else ():
            found = node.found()
            if node is not point.node and not (found is not None and found.complete):
                shared = [
                    word for word in point.words if word.lstrip("+~").partition("=")[0] != "fresh"
                ]  # of the target
                words = (*shared, f"only={node.short_name}")
                inputs.setdefault(node.short_name, Wanted(node.short_name, node, words, _inputs(node)))
    # A target that is another's input: both are in the array, where the second waits for the lock of the first.
    return {name: wanted for name, wanted in inputs.items() if name not in targets}, targets


def _inputs(node: Node) -> tuple[str, ...]:
    return tuple(source.short_name for source in node.inputs.values() if isinstance(source, Node))


def _needs(wanted: Wanted, inputs: dict[str, Wanted]) -> set[str]:
    needs = {name for name in wanted.inputs if name in inputs}
    return needs.union(*(_needs(inputs[name], inputs) for name in needs))


def _name(node: Node) -> str:
    """The run's name: STAGE-DIGITS, and the shard if several processes divide the stage."""
    stage = node.stage.config.stage
    shards = stage.get("shards", 1)
    return node.short_name if shards == 1 else f"{node.short_name}-shard-{stage.get('shard', 0)}"
