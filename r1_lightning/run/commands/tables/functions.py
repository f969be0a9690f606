"""Measures that no YAML can say, a function each: `function: distinct_paths` in a table's file names one.

Each takes the `Measurable` model of one arm and seed and returns measures by name. Most count something in the samples that an
evaluation draws; `rl_data` and `sft_data` describe data, and train no model.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from hydra.utils import instantiate

from r1_lightning.artefacts import data_set
from r1_lightning.artefacts.progress import progress
from r1_lightning.artefacts.store import open_artefact
from r1_lightning.evaluation.comparison import Comparison
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.functional.intervals import Interval, bootstrap_mean_interval, share_interval
from r1_lightning.rewards.accuracy import grades
from r1_lightning.run.commands.base import task_of
from r1_lightning.run.commands.evaluate import Prepared
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.inject import inject
from r1_lightning.tasks.family import TASK
from r1_lightning.text.equations import equations
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.text import Completion, Problem, RewardFunction

PATHS_AT = (1, 3, 6, 12, 25, 50, 100)  # the k of RFT's table 2
# R1v2 appendix C.2 counts these words; in Chinese the word that the miniature's corpus has.
REFLECTIVE = re.compile(
    r"\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check)\b|等等|不对|检查|验证|错误", re.I
)
CARD_PROBLEMS = 4000  # questions drawn for the card of RL data
Measures = Mapping[str, Measure]


class Measurable(Protocol):
    """What a function may ask of one arm and seed."""

    @property
    def folder(self) -> Path:
        """The folder of the finished artefact."""

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of `scripts/train.py` that make it."""

    @property
    def ready(self) -> Prepared:
        """The model, and what it is evaluated on."""

    @property
    def answered(self) -> tuple[list[Problem], list[list[Completion]]]:
        """Held-out problems, and the samples of each."""

    @property
    def judge(self) -> RewardFunction:
        """What judges an answer."""


def distinct_paths(subject: Measurable) -> Measures:
    """Distinct right paths per question among the first k samples: paths with the same equations are one (RFT, section 3.3)."""
    _, completions = subject.answered
    right = _right(subject)
    found = {}
    for k in (k for k in PATHS_AT if k <= len(completions[0])):
        counts = [
            len({equations(sample.text) for sample, is_right in zip(row[:k], ok, strict=False) if is_right})
            for row, ok in zip(completions, right, strict=True)
        ]
        found[f"paths_at_{k}"] = Measure(float(np.mean(counts)), bootstrap_mean_interval(counts))
    return found


def reflective_words(subject: Measurable) -> Measures:
    """Reflective words per completion, the share of completions that have one, and accuracy with and without one."""
    _, completions = subject.answered
    right = _right(subject)
    counts = [[len(REFLECTIVE.findall(sample.text)) for sample in row] for row in completions]
    found = {
        "reflective_words": _mean([[float(n) for n in row] for row in counts]),
        "reflective_share": _mean([[float(n > 0) for n in row] for row in counts]),
        "pass_at_1": _mean([[float(ok) for ok in row] for row in right]),
    }
    for name, wanted in (("pass_at_1_reflective", True), ("pass_at_1_plain", False)):
        chosen = [
            [float(ok) for ok, n in zip(row, ns, strict=True) if (n > 0) == wanted]
            for row, ns in zip(right, counts, strict=True)
        ]
        if any(chosen):
            found[name] = _mean([row for row in chosen if row])
    return found


def by_level(subject: Measurable) -> Measures:
    """Accuracy, and length in tokens, of the problems of each level of difficulty."""
    problems, completions = subject.answered
    right = _right(subject)
    rows: dict[int, list[int]] = defaultdict(list)
    for number, problem in enumerate(problems):
        rows[problem.level].append(number)
    found = {}
    for level, numbers in sorted(rows.items()):
        found[f"tokens_level_{level}"] = _mean([[float(s.n_tokens) for s in completions[n]] for n in numbers])
        found[f"pass_at_1_level_{level}"] = _mean([[float(ok) for ok in right[n]] for n in numbers])
    return found


def compared(subject: Measurable) -> Measures:
    """As `stage=compare` measures: programs are run, replies to general and safety requests have their known quality.

    On a task without such requests it is the evaluation, judged as that task says.
    """
    ready = subject.ready
    with composing():
        comparison: Comparison = inject(compose_stage(["stage=compare"]).config.stage, {})
    requests = comparison.requests_of(instantiate(ready.config.task.source, _convert_="all"))
    total = len(ready.evaluator.problems) * ready.evaluator.config.samples + sum(map(len, requests.values()))
    with progress(total, "evaluating", "completion") as bar:
        if not requests:
            return ready.evaluator(ready.backbone, bar.update)
        return comparison(ready.evaluator, requests, ready.backbone, bar.update)


def rl_data(subject: Measurable) -> Measures:
    """Of the questions that RL asks: the share of each task, and the mean length of its questions in characters."""
    words = [word for word in subject.words if word.split("=")[0] != "experiment"]
    config, source = task_of([word for word in words if not word.startswith("stage=")])
    lengths: dict[str, list[int]] = defaultdict(list)
    for index in range(CARD_PROBLEMS):
        problem = source.train_problem(config.seed, index)
        lengths[problem.metadata.get(TASK, "all")].append(len(problem.question))
    found = {}
    for task, own in sorted(lengths.items()):
        found[f"share_{task}"] = share_of(len(own), CARD_PROBLEMS)
        found[f"characters_{task}"] = Measure(float(np.mean(own)), bootstrap_mean_interval(own))
    return found


def sft_data(subject: Measurable) -> Measures:
    """Of a data set for fine-tuning: rows, the share of each task or domain, and the mean tokens of its completions."""
    base = open_artefact(subject.folder).inputs["base"]["folder"]
    tokenizer = TextTokenizer.load(open_artefact((subject.folder / base).resolve()).tokenizer_folder)
    lengths: dict[str, list[int]] = defaultdict(list)
    for part in data_set.parts_of(subject.folder):
        for row in data_set.read_lines(part):
            kind = (row.get("metadata") or {}).get(TASK) or row.get("domain") or row["source"]
            lengths[kind].append(len(tokenizer.encode(row["completion"])))
    total = sum(map(len, lengths.values()))
    found = {"rows": _plain(float(total)), "tokens": _plain(sum(map(sum, lengths.values())) / total)}
    for kind, own in sorted(lengths.items()):
        found[f"share_{kind}"] = share_of(len(own), total)
        found[f"tokens_{kind}"] = _plain(float(np.mean(own)))
    return found


FUNCTIONS: Mapping[str, Callable[[Measurable], Measures]] = {
    f.__name__: f for f in (distinct_paths, reflective_words, by_level, compared, rl_data, sft_data)
}
UNTRAINED = ("rl_data",)  # what asks for the configuration alone


def share_of(count: int, total: int) -> Measure:
    """A share that was counted: it has no interval."""
    return _plain(count / total)


def _plain(value: float) -> Measure:
    return Measure(value, Interval(value, math.nan, math.nan))


def _right(subject: Measurable) -> list[list[bool]]:
    """Whether each sample has the right answer in its place, as the accuracy reward asks."""
    problems, completions = subject.answered
    return [
        [grade.accurate for grade in grades([(problem, sample) for sample in row], subject.judge)]
        for problem, row in zip(problems, completions, strict=True)
    ]


def _mean(rows: Sequence[Sequence[float]]) -> Measure:
    values = [value for row in rows for value in row]
    clusters = [number for number, row in enumerate(rows) for _ in row]
    interval = share_interval if max(values) <= 1 else bootstrap_mean_interval
    return Measure(float(np.mean(values)), interval(values, clusters))
