"""Makes the rows of a table: trains each arm's missing runs and measures them, or measures checkpoints that a user has.

Both are a `Recipe`, so that the loop of the reports makes each run once, appends its rows with fingerprint and commit, and draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.hf_folder import ImportedModel
from r1_lightning.artefacts.store import Artefact
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.functional.intervals import Interval
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.run.build.stored import open_folder
from r1_lightning.run.commands.evaluate import EMPTY_THINK, Prepared, evaluate, prepared
from r1_lightning.run.commands.recipe import Made, Recipe, Row, Run, read
from r1_lightning.run.commands.report_runs import commit_at_start, made_by, planned_fingerprint, train
from r1_lightning.run.commands.tables.declared import Arm, Table
from r1_lightning.run.commands.tables.functions import FUNCTIONS, UNTRAINED
from r1_lightning.run.commands.tables.page import page
from r1_lightning.types.errors import require, require_choice
from r1_lightning.types.text import Completion, Problem, RewardFunction

FIELDS = ("arm", "seed", "measure", "value", "low", "high", "fingerprint", "commit", "settings")
REHEARSAL = ("debug=fast",)  # two steps a stage
REHEARSED = {"problems": 4, "samples": 2}


@dataclass(frozen=True)
class Subject:
    """One model to be measured: where it lies, how it is evaluated, and the arguments that made it."""

    folder: Path
    settings: Mapping[str, Any]
    forced_prefix: str = ""
    task: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def evaluated(self) -> dict[str, Measure]:
        """The measures of the evaluation, by name."""
        return evaluate(self.folder, self.settings, self.forced_prefix, task=self.task)[1]

    @cached_property
    def ready(self) -> Prepared:
        """The model, and what it is evaluated on."""
        return prepared(self.folder, self.settings, self.forced_prefix, task=self.task)

    @cached_property
    def answered(self) -> tuple[list[Problem], list[list[Completion]]]:
        """The held-out problems, and the samples of each."""
        evaluator = self.ready.evaluator
        return list(evaluator.problems), evaluator.completions(self.ready.backbone)

    @property
    def judge(self) -> RewardFunction:
        """What judges the answers: as in the evaluation."""
        evaluator = self.ready.evaluator
        return evaluator.accuracy or AccuracyReward(form=evaluator.template.form)


def own_runs(table: Table, seeds: Sequence[int], rehearsal: bool = False) -> tuple[Recipe, list[Run]]:
    """The recipe of a table with runs of its own, and the runs for `seeds`. Raises `InvalidInput` for an unknown function."""
    require_choice(f"{table.id}.yaml: function", table.function, (None, *FUNCTIONS))
    recipe = Recipe(
        seeds=table.seeds,
        key={"arm": str, "seed": int},
        fields=FIELDS,
        runs=lambda options: [(arm, seed) for seed in options.seeds for arm in table.arms],
        overrides=partial(overrides, table, rehearsal=rehearsal),
        make=partial(_make, table, rehearsal),
        table=partial(_page, _rehearsed(table) if rehearsal else table),
        curve_fields=("arm", "seed", "step", *columns(table)),
    )
    return recipe, [(arm, seed) for seed in seeds for arm in table.arms]


def overrides(table: Table, arm: str, seed: int, rehearsal: bool = False) -> list[str]:
    """The arguments of `scripts/train.py` for one arm and seed."""
    words = [*table.arms[arm].words, f"seed={seed}"]
    if rehearsal:  # what is typed has the last word: a number of steps would undo the rehearsal's
        return [*(word for word in words if not word.startswith("stage.max_steps=")), *REHEARSAL]
    return words


def columns(table: Table) -> tuple[str, ...]:
    """The columns of metrics.csv that measures are taken from."""
    return tuple(dict.fromkeys(m.points.column for m in table.measures.values() if m.points is not None))


def _page(table: Table, rows: Sequence[Row]) -> str:
    return page(table, rows, ())


def _rehearsed(table: Table) -> Table:
    """The table as a rehearsal's page names it: what was measured, and how little, beside what the table asks for."""
    settings = " ".join(f"{key}={value}" for key, value in REHEARSED.items())
    return replace(
        table,
        protocol=f"a rehearsal with {settings}; in full: {table.protocol}",
        budget=f"a rehearsal of two steps a stage; in full: {table.budget}",
    )


def _make(table: Table, rehearsal: bool, arm: str, seed: int, root: Path) -> Made:
    words = overrides(table, arm, seed, rehearsal)
    changed = REHEARSED if rehearsal else {}
    settings, said = {**table.evaluation, **changed}, {"settings": settings_of(table, changed, ())}
    if table.function in UNTRAINED:
        subject = Subject(root, settings, words=tuple(words))
        made = {"fingerprint": planned_fingerprint(*words), "commit": commit_at_start(), **said}
        return Made(list(_rows(arm, seed, FUNCTIONS[table.function](subject), made)))
    artefact, _ = train(words, root)
    subject = Subject(artefact.folder, settings, _prefix(table.arms[arm]), table.task, tuple(words))
    points = list(_points(table, arm, seed, artefact))
    measures = {**_measured(table, subject), **_of_points(table, points)}
    return Made(list(_rows(arm, seed, measures, {**made_by(artefact), **said})), points)


def _measured(table: Table, subject: Subject) -> dict[str, Measure]:
    measures = subject.evaluated() if table.evaluation and not table.function else {}
    if table.function:
        measures.update(FUNCTIONS[table.function](subject))
    return {name: measure for name, measure in measures.items() if name in table.measures}


def _of_points(table: Table, points: Sequence[Row]) -> dict[str, Measure]:
    chosen = {name: m.points for name, m in table.measures.items() if m.points is not None}
    found = {name: spec.of(points) for name, spec in chosen.items()}
    return {name: Measure(value, Interval(value, math.nan, math.nan)) for name, value in found.items()}


def _points(table: Table, arm: str, seed: int, artefact: Artefact) -> Iterator[dict[str, str]]:
    wanted = columns(table)
    for row in read(artefact.folder / METRICS) if wanted else ():
        if any(row.get(column) for column in wanted):
            yield {"arm": arm, "seed": str(seed), "step": row["step"], **{name: row.get(name, "") for name in wanted}}


def _rows(arm: str, seed: int, measures: Mapping[str, Measure], made: Mapping[str, str]) -> Iterator[dict[str, object]]:
    for name, measure in measures.items():
        bounds = {"low": measure.interval.low, "high": measure.interval.high}
        shown = {key: "" if math.isnan(bound) else f"{bound:.6g}" for key, bound in bounds.items()}
        yield {"arm": arm, "seed": seed, "measure": name, "value": f"{measure.value:.6g}", **shown, **made}


def _prefix(arm: Arm) -> str:
    return EMPTY_THINK if arm.forced_prefix else ""


# ------------------------------------------------------------------------------------------------ checkpoints of one's own


def own_checkpoints(
    table: Table, folders: Mapping[str, Sequence[str]], evaluation: Mapping[str, object], task: Sequence[str]
) -> tuple[Recipe, list[Run]]:
    """The recipe that measures `folders`, by arm; the first folder of an arm is its seed 0, the next seed 1.

    Raises `InvalidInput` for an arm or a function that there is not, and for a table that is measured otherwise than by evaluation.
    The page says how they were evaluated, beside the table's own protocol and budget.
    """
    require_choice(f"{table.id}.yaml: function", table.function, (None, *FUNCTIONS))
    for arm, given in folders.items():
        require_choice("init_from", arm, table.arms)
        require_other_checkpoints(arm, given)
    measured = bool(table.evaluation) and table.function not in UNTRAINED
    reason = table.no_checkpoint or "this table is not measured by an evaluation of models"
    require(measured, "init_from", sorted(folders), reason)
    settings, asked = {**table.evaluation, **evaluation}, tuple(task) or table.task
    said = settings_of(table, evaluation, task)
    shown = replace(
        table,
        report=None,
        protocol=f"measured with {said}; the table's own: {table.protocol}",
        budget=f"checkpoints of one's own; the table's own: {table.budget}",
    )
    runs: list[Run] = [(arm, seed, folder) for arm, own in folders.items() for seed, folder in enumerate(own)]

    def make(arm: str, seed: int, folder: str, root: Path) -> Made:
        place = open_folder(Path(folder))
        subject = Subject(Path(folder), settings, _prefix(table.arms[arm]), asked)
        made = {"fingerprint": place.fingerprint[:SHORT_DIGITS], "commit": place.commit, "settings": said}
        return Made([{**row, "folder": folder} for row in _rows(arm, seed, _measured(table, subject), made)])

    own = Recipe(
        seeds=(),
        key={"arm": str, "seed": int, "folder": str},
        fields=(*FIELDS, "folder"),
        runs=lambda options: runs,
        overrides=lambda *run: [],
        make=make,
        table=partial(_page, shown),
        is_of_run=lambda row: False,  # nothing was trained by this command
    )
    return own, runs


def require_other_checkpoints(arm: str, folders: Sequence[str]) -> None:
    """Raise `InvalidInput` if two folders of an arm hold the same weights: a copy is not another seed.

    The weights of folders of an arm that has several are read for their digests; those of artefacts stand in their records.
    """
    given = {f"{Path(folder).resolve()}": folder for folder in folders}
    same = len(given) < len(folders)
    if len(given) > 1:
        same = same or len({_digest(open_folder(folder)) for folder in given.values()}) < len(folders)
    require(not same, f"init_from={arm}", list(folders), "each seed of an arm is another checkpoint")


def _digest(place: Artefact) -> str:
    return place.source.fingerprint() if isinstance(place, ImportedModel) else place.weights_sha256


def settings_of(table: Table, evaluation: Mapping[str, object], task: Sequence[str]) -> str:
    """How models are measured: `function=by_level problems=500 samples=16 task=math500 last_loss=train/loss[last 50]`."""
    function = [f"function={table.function}"] if table.function else []
    settings = {**table.evaluation, **evaluation}
    points = {name: measure.points for name, measure in table.measures.items() if measure.points is not None}
    return " ".join(
        [
            *function,
            *(f"{key}={value}" for key, value in sorted(settings.items())),
            *(task or table.task),
            *(f"{name}={spec}" for name, spec in points.items()),
        ]
    )


def require_same_measuring(out: Path, rows: Iterable[Row], said: str) -> None:
    """Raise `InvalidInput` if a row was measured otherwise than `said`: no table mixes two ways of measuring."""
    for row in rows:
        other = row.get("settings")
        allowed = f"its rows were measured with {other!r}, not with {said!r}; take another out="
        require(other == said, "out", str(out), allowed)


def require_same_checkpoints(out: Path, rows: Iterable[Row], runs: Iterable[Run]) -> None:
    """Raise `InvalidInput` if a row is of another checkpoint of the same arm and seed."""
    asked = {(str(arm), str(seed)): folder for arm, seed, folder in runs}
    for row in rows:
        own = {"arm", "seed", "folder"} <= set(row)
        require(own, "out", str(out), "its rows are not of checkpoints of one's own; take another out=")
        known = asked.get((row["arm"], row["seed"]), row["folder"])
        allowed = f"its rows of arm {row['arm']} are of {row['folder']}; take another out="
        require(known == row["folder"], "out", str(out), allowed)


def arguments_of(table: Table, seeds: Iterable[int]) -> Iterator[list[str]]:
    """The arguments of `scripts/train.py` of every run of a table with runs of its own."""
    for seed in seeds:
        for arm in table.arms:
            yield overrides(table, arm, seed)
