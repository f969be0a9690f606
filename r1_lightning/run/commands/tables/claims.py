"""The verdict on a claim: a rule that is written down before the run, and Student's interval of its number over seeds.

Every rule turns the runs of one seed into one number, and says where that number lies if the claim is true:

    above      arm - than                  above `by`                   on `measure` (`than_measure`: another one of `than`)
    within     100 (arm - than) / than     within +- `percent`          on `measure`
    rises      end - start                 above `by`                   two measures of `arm`
    falls      start - end                 above `by`                   two measures of `arm`
    grows      end / start                 `factor` or more             two measures of `arm`
    times      arm / than                  `factor` or more             on `measure`
    at_least   arm                         `bound` or more              on `measure`
    at_most    arm                         `bound` or less              on `measure`

Both sides of a number are of one seed, so the differences are paired. If the whole 95 % interval of their mean lies where the
claim says, it is supported; if all of it lies outside, it is not supported; else, with fewer than three seeds, and if a seed gave
no finite number, nobody can tell at this budget. Nothing in a rule is code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from r1_lightning.functional.intervals import Interval, mean_interval_t
from r1_lightning.run.commands.tables.values import Values, numbers
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_number

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
CANNOT_TELL, NOT_MEASURED = "cannot tell at this budget", "not measured"
FEWEST_SEEDS = 3  # with two, Student's t is 12.7

Rule = Mapping[str, object]  # `kind` and its keys, as in the YAML


@dataclass(frozen=True)
class Region:
    """Where a claim's number lies if the claim is true: from `low` (left out if `is_open`) to `high`."""

    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False

    def holds(self, interval: Interval) -> bool:
        """Whether all of the interval lies inside."""
        return (self.low < interval.low if self.is_open else self.low <= interval.low) and interval.high <= self.high

    def fails(self, interval: Interval) -> bool:
        """Whether all of the interval lies outside, on one side."""
        below = interval.high <= self.low if self.is_open else interval.high < self.low
        return below or interval.low > self.high


@dataclass(frozen=True)
class Kind:
    """A kind of rule: the keys that it must have, those with a default, its number of one seed, and its region."""

    needs: tuple[str, ...]
    defaults: Mapping[str, object]
    number: Callable[[float, float], float]
    region: Callable[[float], Region]
    words: str


def _above(by: float) -> Region:
    return Region(low=by, is_open=True)


_TWO_ARMS, _TWO_MEASURES, _ONE = ("arm", "than", "measure"), ("arm", "start", "end"), ("arm", "measure", "bound")
KINDS: Mapping[str, Kind] = {
    "above": Kind(
        _TWO_ARMS,
        {"by": 0.0, "than_measure": None},
        lambda a, b: a - b,
        _above,
        "{arm} - {than} on {measure} > {limit}",
    ),
    "within": Kind(
        (*_TWO_ARMS, "percent"),
        {},
        lambda a, b: 100 * (a - b) / b,
        lambda percent: Region(-percent, percent),
        "{arm} within {limit} % of {than} on {measure}",
    ),
    "rises": Kind(
        _TWO_MEASURES, {"by": 0.0}, lambda end, start: end - start, _above, "{arm}: {end} - {start} > {limit}"
    ),
    "falls": Kind(
        _TWO_MEASURES, {"by": 0.0}, lambda end, start: start - end, _above, "{arm}: {start} - {end} > {limit}"
    ),
    "grows": Kind(
        (*_TWO_MEASURES, "factor"),
        {},
        lambda end, start: end / start,
        lambda factor: Region(low=factor),
        "{arm}: {end} / {start} >= {limit}",
    ),
    "times": Kind(
        (*_TWO_ARMS, "factor"),
        {},
        lambda a, b: a / b,
        lambda factor: Region(low=factor),
        "{arm} / {than} on {measure} >= {limit}",
    ),
    "at_least": Kind(_ONE, {}, lambda a, _: a, lambda bound: Region(low=bound), "{arm}: {measure} >= {limit}"),
    "at_most": Kind(_ONE, {}, lambda a, _: a, lambda bound: Region(high=bound), "{arm}: {measure} <= {limit}"),
}
_LIMITS = ("by", "percent", "factor", "bound")


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: the word, the interval over seeds (None with fewer than two), and the number of each seed.

    `lost` are the seeds that were measured, but gave no finite number (a run that diverged): with one of them nobody can tell.
    """

    word: str
    interval: Interval | None = None
    of_seeds: Mapping[str, float] | None = None
    lost: tuple[str, ...] = ()


def check_rule(where: str, rule: Rule, arms: Mapping[str, object], measures: Mapping[str, object]) -> None:
    """Raise `InvalidInput` unless the rule is of a kind there is, has its keys alone, and names arms and measures there are."""
    require_choice(f"{where}.kind", rule.get("kind"), KINDS)
    kind = KINDS[str(rule["kind"])]
    known = {"kind", *kind.needs, *kind.defaults}
    require(known >= set(rule), where, sorted(set(rule) - known), f"a rule of this kind has {', '.join(sorted(known))}")
    missing = [key for key in kind.needs if key not in rule]
    require(not missing, where, missing, "these keys are missing")
    for key in {"arm", "than"} & set(rule):
        require_choice(f"{where}.{key}", rule[key], arms)
    for key in {"measure", "than_measure", "start", "end"} & set(rule):
        require_choice(f"{where}.{key}", rule[key], measures)
    require_number(f"{where}, the limit", limit_of(rule), -math.inf)


def limit_of(rule: Rule) -> float:
    """The number that a rule compares with."""
    kind = KINDS[str(rule["kind"])]
    found = [{**kind.defaults, **rule}[key] for key in _LIMITS if key in {**kind.defaults, **rule}]
    require(isinstance(found[0], int | float), "limit", found[0], "it must be a number")
    return float(found[0])  # type: ignore[arg-type]


def words_of(rule: Rule) -> str:
    """The rule for people: `r1_zero - base on pass_at_1 > 0.1`."""
    other = rule.get("than_measure")
    text = KINDS[str(rule["kind"])].words.format(**rule, limit=f"{limit_of(rule):g}")
    return text if other is None else text.replace(f" on {rule['measure']}", f" ({rule['measure']} - {other})")


def verdict_of(rule: Rule, values: Values) -> Verdict:
    """The verdict on a rule, over the seeds that have both of its sides."""
    sides = _sides(rule)
    first, second = (numbers(values, *side) for side in sides)
    seeds = sorted(set(first) & set(second), key=int)
    if not seeds:
        return Verdict(NOT_MEASURED)
    kind = KINDS[str(rule["kind"])]
    try:
        found = {seed: kind.number(first[seed], second[seed]) for seed in seeds}
    except ZeroDivisionError:
        return Verdict(CANNOT_TELL)
    measured = set.intersection(*(set(values.get(side, {})) for side in sides))
    if lost := tuple(sorted(measured - set(seeds), key=int)):
        return replace(judge(found, kind.region(limit_of(rule))), word=CANNOT_TELL, lost=lost)
    return judge(found, kind.region(limit_of(rule)))


def _sides(rule: Rule) -> tuple[tuple[str, str], tuple[str, str]]:
    """The arm and the measure of both sides; a rule of one side has the same twice."""
    kind, arm = KINDS[str(rule["kind"])], str(rule["arm"])
    first = (arm, str(rule.get("measure", rule.get("end"))))
    if "start" in kind.needs:
        return first, (arm, str(rule["start"]))
    if "than" in kind.needs:
        return first, (str(rule["than"]), str(rule.get("than_measure") or rule["measure"]))
    return first, first


def judge(found: Mapping[str, float], region: Region) -> Verdict:
    """The verdict on the numbers of all seeds."""
    if len(found) < 2:
        return Verdict(CANNOT_TELL, None, found)
    try:
        interval = mean_interval_t(list(found.values()))
    except InvalidInput:  # a number that is not finite
        return Verdict(CANNOT_TELL, None, found)
    if len(found) < FEWEST_SEEDS:
        return Verdict(CANNOT_TELL, interval, found)
    word = SUPPORTED if region.holds(interval) else NOT_SUPPORTED if region.fails(interval) else CANNOT_TELL
    return Verdict(word, interval, found)
