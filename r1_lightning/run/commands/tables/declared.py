"""A table as configs/table/ID.yaml declares it. Unknown keys, arms and measures are refused in one line.

title, protocol, budget    for people; `minutes` is the time of one seed on one core, as a rehearsal gives it
paper    source; file, a CSV of the package, with `models_in` or `quantities_in`; `also`, models that stand beside ours
arms     name -> label, `words` (the arguments of scripts/train.py), `paper` (the model's name there), `forced_prefix`
report   the report whose rows these are, in place of runs of the table's own; then an arm has `rows` and `points`, filters;
         `report_words` are the options of that report that make them
evaluation   problems, samples, ...: fields of `EvaluationConfig`; none: nothing is evaluated
no_checkpoint   why `init_from` cannot fill this table (its numbers are of a training run, or of data)
function     a measure that no YAML can say (`functions.py`)
measures name -> label, `paper` (the quantity's name there), `digits`, `rows` or `points` (`values.py`)
claims   says, where, and a rule (`claims.py`) or the reason why it is not measured
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from r1_lightning.run.commands.recipe import Row
from r1_lightning.run.commands.tables.claims import Rule, check_rule
from r1_lightning.run.commands.tables.paper import PaperTable, paper_table
from r1_lightning.run.commands.tables.values import Cell, Filter, Points, Values, of_points, of_rows
from r1_lightning.run.config.compose import config_folder
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int

FOLDER = "table"  # below configs/
RULES = ("before", "after")
OPTIONAL = ("minutes", "report", "report_words", "evaluation", "task", "function", "no_checkpoint")
PLAIN = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Arm:
    """One model of a table (the YAML's keys are in the module's docstring)."""

    name: str
    label: str
    words: tuple[str, ...] = ()
    paper: str | None = None
    forced_prefix: str | None = None
    rows: Filter = field(default_factory=dict)
    points: Filter = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """One measure of a table."""

    name: str
    label: str
    paper: str | None = None
    digits: int | None = None
    rows: Filter = field(default_factory=dict)
    points: Points | None = None


@dataclass(frozen=True)
class Claim:
    """What a paper says, where, and the rule of its verdict, or why there is none."""

    says: str
    where: str
    rule: Rule | None = None
    not_measured: str | None = None


@dataclass(frozen=True)
class Paper:
    """The paper's side: its source in words and, if it prints numbers, their file."""

    source: str
    table: PaperTable | None = None
    models_in: str | None = None
    quantities_in: str | None = None
    also: tuple[str, ...] = ()

    def cell(self, model: str | None, quantity: str | None) -> str:
        """What the paper prints; an empty text where it has no such model or quantity."""
        if self.table is None or model is None or quantity is None:
            return ""
        return self.table.cell(model, quantity, self.models_in, self.quantities_in)


@dataclass(frozen=True)
class Table:
    """One table, declared."""

    id: str
    title: str
    paper: Paper
    protocol: str
    budget: str
    rules: str
    seeds: tuple[int, ...]
    arms: Mapping[str, Arm]
    measures: Mapping[str, Measured]
    claims: tuple[Claim, ...]
    minutes: float | None = None
    report: str | None = None
    report_words: tuple[str, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    task: tuple[str, ...] = ()
    function: str | None = None
    no_checkpoint: str | None = None

    def values(self, rows: Sequence[Row], points: Sequence[Row]) -> Values:
        """All values, by (arm, measure) and seed."""
        return {
            (arm.name, measure.name): self._cells(arm, measure, rows, points)
            for arm in self.arms.values()
            for measure in self.measures.values()
        }

    def _cells(self, arm: Arm, measure: Measured, rows: Sequence[Row], points: Sequence[Row]) -> dict[str, Cell]:
        if self.report is None:  # a measure of points became a row when its run ended
            return of_rows(rows, {"arm": arm.name}, {"measure": measure.name})
        if measure.points is not None:
            return of_points(points, arm.points, measure.points)
        return of_rows(rows, arm.rows, measure.rows or {"measure": measure.name})


def tables() -> dict[str, Path]:
    """The file of each table, by ID; files below configs/table of the working directory take precedence over ours."""
    found: dict[str, Path] = {}
    for folder in (Path.cwd() / "configs" / FOLDER, config_folder() / FOLDER):
        for path in sorted(folder.glob("*.yaml")):
            if PLAIN.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def read_table(path: Path) -> Table:
    """Read and check one file. Raises `InvalidInput`."""
    where = path.name
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: it cannot be read as YAML ({' '.join(str(error).split())})") from error
    needed = ("title", "paper", "protocol", "budget", "rules", "seeds", "arms", "measures", "claims")
    _check_keys(where, node, needed, OPTIONAL)
    for key in ("seeds", "claims"):
        require(isinstance(node[key], list), f"{where}: {key}", node[key], "it must be a list")
    _check_texts(where, node, ("title", "protocol", "budget"))
    for key in ("paper", "arms", "measures"):
        require(isinstance(node[key], Mapping), f"{where}: {key}", node[key], "it must be a mapping")
    report = node.get("report")
    arms = {name: _arm(f"{where}: arms.{name}", name, arm or {}, report) for name, arm in node["arms"].items()}
    measures = {name: _measure(f"{where}: measures.{name}", name, m or {}) for name, m in node["measures"].items()}
    table = Table(
        id=path.stem,
        title=node["title"],
        paper=_paper(f"{where}: paper", node["paper"]),
        protocol=node["protocol"],
        budget=node["budget"],
        rules=node["rules"],
        seeds=tuple(node["seeds"]),
        arms=arms,
        measures=measures,
        claims=tuple(_claims(f"{where}: claims", node["claims"], arms, measures)),
        minutes=node.get("minutes"),
        report=report,
        report_words=tuple(str(node.get("report_words", "")).split()),
        evaluation=node.get("evaluation") or {},
        task=tuple(str(node.get("task", "")).split()),
        function=node.get("function"),
        no_checkpoint=node.get("no_checkpoint"),
    )
    require_choice(f"{where}: rules", table.rules, RULES)
    for seed in table.seeds:
        require_int(f"{where}: seeds", seed, 0)
    _look_up(table)
    return table


def _look_up(table: Table) -> None:
    """Ask the paper's file for every cell that the table will show, so that a mistyped name is refused here."""
    for measure in table.measures.values():
        for model in [*table.paper.also, *(arm.paper for arm in table.arms.values())]:
            table.paper.cell(model, measure.paper)


def _arm(where: str, name: str, node: Mapping[str, Any], report: str | None) -> Arm:
    _check_keys(where, node, (), ("label", "words", "paper", "forced_prefix", "rows", "points"))
    _check_texts(where, node, ("label", "words", "paper"))
    words = tuple(str(node.get("words", "")).split())
    has_filter = "rows" in node or "points" in node
    require(bool(words) != bool(report), f"{where}.words", " ".join(words), "an arm has words, or the table a report")
    require(has_filter == bool(report), f"{where}.rows", node.get("rows"), "rows and points are for rows of a report")
    prefix = node.get("forced_prefix")
    require_choice(f"{where}.forced_prefix", prefix, (None, "empty_think"))
    return Arm(name, node.get("label", name), words, node.get("paper"), prefix, *_filters(node))


def _filters(node: Mapping[str, Any]) -> Iterator[Filter]:
    for key in ("rows", "points"):
        yield _filter(node, key)


def _filter(node: Mapping[str, Any], key: str) -> Filter:
    found = node.get(key) or {}
    require(isinstance(found, Mapping), key, found, "it must be a mapping of columns to their texts")
    return {column: str(text) for column, text in found.items()}


def _measure(where: str, name: str, node: Mapping[str, Any]) -> Measured:
    _check_keys(where, node, (), ("label", "paper", "digits", "rows", "points"))
    points = None
    if "points" in node:
        _check_keys(f"{where}.points", node["points"], ("column",), ("first", "last"))
        points = Points(**node["points"])
        one = (points.first is None) != (points.last is None)
        require(one, f"{where}.points", node["points"], "it must have `first` or `last`")
        require_int(f"{where}.points", points.last if points.first is None else points.first, 1)
    _check_texts(where, node, ("label", "paper"))
    if node.get("digits") is not None:
        require_int(f"{where}.digits", node["digits"], 0, 17)
    rows = _filter(node, "rows")
    return Measured(name, node.get("label", name), node.get("paper"), node.get("digits"), rows, points)


def _paper(where: str, node: Mapping[str, Any]) -> Paper:
    _check_keys(where, node, ("source",), ("file", "models_in", "quantities_in", "also"))
    _check_texts(where, node, ("source", "file", "models_in", "quantities_in"))
    require(isinstance(node.get("also", []), list), f"{where}.also", node.get("also"), "it must be a list")
    if "file" not in node:
        return Paper(node["source"])
    axes = (node.get("models_in"), node.get("quantities_in"))
    require(axes.count(None) == 1, where, axes, "it must have models_in or quantities_in")
    return Paper(node["source"], paper_table(node["file"]), *axes, tuple(node.get("also", ())))


def _claims(
    where: str, nodes: Sequence[Mapping[str, Any]], arms: Mapping[str, Arm], measures: Mapping[str, Measured]
) -> Iterator[Claim]:
    require(bool(nodes), where, nodes, "a table has at least one claim")
    for number, node in enumerate(nodes):
        at = f"{where}[{number}]"
        _check_keys(at, node, ("says", "where"), ("rule", "not_measured"))
        rule, reason = node.get("rule"), node.get("not_measured")
        require((rule is None) != (reason is None), at, sorted(node), "it must have a rule, or not_measured: REASON")
        if rule is not None:
            require(isinstance(rule, Mapping), f"{at}.rule", rule, "it must be a mapping")
            check_rule(f"{at}.rule", rule, arms, measures)
        yield Claim(node["says"], node["where"], rule, reason)


def _check_texts(where: str, node: Mapping[str, Any], keys: Collection[str]) -> None:
    for key in keys:
        require(isinstance(node.get(key, ""), str), f"{where}.{key}", node.get(key), "it must be text")


def _check_keys(where: str, node: object, needed: Collection[str], more: Collection[str]) -> None:
    require(isinstance(node, Mapping), where, node, "it must be a mapping")
    assert isinstance(node, Mapping)
    unknown, missing = sorted(set(node) - {*needed, *more}), sorted(set(needed) - set(node))
    require(not unknown, where, unknown, f"its keys are {', '.join([*needed, *more])}")
    require(not missing, where, missing, "these keys are missing")
