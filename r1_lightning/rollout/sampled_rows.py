"""Makes the rows of a data set, and their counts, from the records of rejection sampling and rows of other sources.

R1's 800k set is about 600k rows of reasoning and 200k of other kinds (arXiv:2501.12948, section 2.3.3): `shares` of 3 and 1.
The set is as large as the scarcest source allows with exactly these shares (rounded down for each source); no row is ever repeated.
A hash of the row numbers chooses the rows of each source: a random sample, and the same one every time.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from r1_lightning.rollout.rejecting import KEPT, REASONS
from r1_lightning.rollout.rejection_sampling import REASONING, SKIPPED, Record
from r1_lightning.tasks.clean_traces import in_r1_form
from r1_lightning.tasks.family import TASK
from r1_lightning.tasks.mixture import DOMAIN
from r1_lightning.text.reasoning_format import FormName
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.text import Problem

Row = dict[str, Any]
CHANGED = "changed by rewriting"  # the fate of a kept sample whose answer would be read differently after rewriting
KEYS = ("domain", "language", "level")  # keys of the counts of the sampled pool
LENGTH = "completion_characters"
ROW_KEYS = ("source", "domain", "task", "language", "level", LENGTH)  # keys of the counts of the data set's rows
NOT_SAID = "not said"


def in_form(record: Record, rewrite_as: FormName | None) -> Record:
    """Return `record` with its kept samples in the form `rewrite_as` (None: unchanged); drops those whose answer would change."""
    if rewrite_as is None:
        return record
    problem = Problem(**record["problem"])
    samples = [
        _rewritten(problem, sample, f"{record['index']}/{number}") if sample["fate"] == KEPT else sample
        for number, sample in enumerate(record["samples"])
    ]
    return {**record, "samples": samples}


def _rewritten(problem: Problem, sample: Mapping[str, Any], key: str) -> dict[str, Any]:
    text = in_r1_form(problem, sample["completion"], key)
    if text is None:
        return {**{name: value for name, value in sample.items() if name != "completion"}, "fate": CHANGED}
    return {**sample, "completion": text}


def rows_of(record: Record) -> Iterator[Row]:
    """Yield the rows of one record: the problem with each of its kept samples."""
    problem = record["problem"]
    for number, sample in enumerate(record["samples"]):
        if sample["fate"] == KEPT:
            names = ("answer", "problem_id", "language")
            yield {
                "question": problem["question"],
                "completion": sample["completion"],
                **({"earlier": problem["earlier"]} if problem.get("earlier") else {}),
                **{name: problem[name] for name in names},
                "domain": domain_of(problem),
                "level": problem["level"],
                "metadata": problem["metadata"],
                "source": REASONING,
                "index": record["index"],
                "sample": number,
                "tokens": sample["tokens"],
            }


def domain_of(problem: Mapping[str, Any]) -> str:
    return str(problem["metadata"].get(DOMAIN, REASONING))


def uncontaminated_rows(
    name: str, rows: Iterable[Mapping[str, Any]], leak: Callable[[str], str | None]
) -> tuple[list[Row], int]:
    """Return another source's rows that overlap with no benchmark, marked with its `name`, and the number of dropped rows."""
    given = list(rows)
    clean = [
        {**row, "source": name} for row in given if leak(row["question"]) is None and leak(row["completion"]) is None
    ]
    return clean, len(given) - len(clean)


def require_sources(shares: Mapping[str, float] | None, sources: Iterable[str]) -> None:
    """Raise InvalidInput for a share of a source that is not among `sources`."""
    known = list(sources)
    for name, share in (shares or {}).items():
        require(name in known, f"stage.shares.{name}", share, f"the sources are {', '.join(known)}")


def sizes(available: Mapping[str, int], shares: Mapping[str, float] | None) -> dict[str, int]:
    """Return the number of rows of each source in the largest set with these shares; all rows if `shares` is None.

    Raises InvalidInput for a share of an unknown source, or for a set without rows.
    """
    if shares is None:
        wanted = dict(available)
    else:
        require_sources(shares, available)
        total = sum(shares.values())
        parts = {name: shares.get(name, 0.0) / total for name in available}
        whole = min(available[name] / part for name, part in parts.items() if part > 0)
        # 1e-9 absorbs rounding just below a whole number.
        wanted = {name: min(available[name], int(whole * part + 1e-9)) for name, part in parts.items()}
    if not sum(wanted.values()):
        have = ", ".join(f"{name}: {count}" for name, count in available.items())
        raise InvalidInput(
            f"stage.shares={shares!r} leaves no row ({have}): sample more, train the model longer, or relax stage.rules"
        )
    return wanted


def chosen(name: str, available: int, wanted: int, seed: int) -> set[int]:
    """Return the numbers of the `wanted` rows that a hash chooses from a source's `available` rows."""

    def key(number: int) -> bytes:
        return hashlib.blake2b(f"{name}/{seed}/{number}".encode(), digest_size=8).digest()

    return set(range(available)) if wanted == available else set(sorted(range(available), key=key)[:wanted])


class Counts:
    """Counts over records: problems, samples, right and kept samples, by domain, language and level; fates; lengths in tokens."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter(dict.fromkeys(SKIPPED, 0))
        self.leaks: Counter[str] = Counter()
        self.fates: Counter[str] = Counter(dict.fromkeys((KEPT, *REASONS, CHANGED), 0))
        self.groups: dict[str, dict[str, Counter[str]]] = {key: defaultdict(Counter) for key in KEYS}
        self.total: Counter[str] = Counter()
        self.tokens: dict[str, list[int]] = {"sampled": [], "right": [], "kept": []}

    def add(self, record: Record) -> None:
        """Count one problem."""
        self.total["problems"] += 1
        if record["skipped"] is not None:
            self.skipped[record["skipped"]] += 1
            if record["benchmark"] is not None:
                self.leaks[record["benchmark"]] += 1
            return
        samples = record["samples"]
        right, kept = sum(s["right"] for s in samples), sum(s["fate"] == KEPT for s in samples)
        own = Counter(
            problems=1,
            samples=len(samples),
            right=right,
            kept=kept,
            solved=int(right > 0),
            always=int(right == len(samples)),
        )
        self.total += Counter({**own, "problems": 0, "sampled_problems": 1})
        problem = record["problem"]
        values = {"domain": domain_of(problem), "language": problem["language"], "level": problem["level"]}
        for key, value in values.items():
            self.groups[key][str(value)] += own
        for sample in samples:
            self.fates[sample["fate"]] += 1
            self.tokens["sampled"].append(sample["tokens"])
            if sample["right"]:
                self.tokens["right"].append(sample["tokens"])
            if sample["fate"] == KEPT:
                self.tokens["kept"].append(sample["tokens"])

    def summary(self) -> dict[str, Any]:
        """Everything as plain values, for `counts.json` and the card."""
        names = ("problems", "sampled_problems", "samples", "right", "kept", "solved", "always")
        return {
            **{name: self.total[name] for name in names},
            "pass_rate": _share(self.total),
            "not_sampled": dict(self.skipped),
            "contaminated_by": dict(self.leaks),
            "samples_by_fate": dict(self.fates),
            "by": {key: _groups(self.groups[key]) for key in KEYS},
            "tokens": {name: _lengths(lengths) for name, lengths in self.tokens.items()},
        }


class RowCounts:
    """Counts of the data set's rows from all sources; `Counts` counts the sampled pool.

    By source, domain, task (of a family: the member), language, level and the completion's length, in characters because
    rows of other sources have no token counts.
    """

    def __init__(self) -> None:
        self.groups: dict[str, Counter[str | int]] = {key: Counter() for key in ROW_KEYS}

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield `rows` unchanged and count each."""
        for row in rows:
            self.add(row)
            yield row

    def add(self, row: Mapping[str, Any]) -> None:
        values = {**row, "task": (row.get("metadata") or {}).get(TASK), LENGTH: len(row["completion"]).bit_length()}
        for key, groups in self.groups.items():
            value = values.get(key)
            groups[value if isinstance(value, (str, int)) else NOT_SAID] += 1

    def summary(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by value for each key, for `counts.json` and the card; leaves out keys that no row has."""
        return {
            key: {_range(value) if key == LENGTH else str(value): groups[value] for value in sorted(groups, key=_place)}
            for key, groups in self.groups.items()
            if set(groups) - {NOT_SAID}
        }


def _place(value: str | int) -> tuple[bool, str | int]:
    return isinstance(value, str), value


def _range(bits: str | int) -> str:
    """Return the range of whole numbers with this many binary digits, because lengths are binned by powers of two."""
    first, last = 2 ** int(bits) // 2, 2 ** int(bits) - 1
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _groups(groups: Mapping[str, Counter[str]]) -> dict[str, dict[str, float | None]]:
    names = ("problems", "samples", "right", "kept", "solved")
    return {
        value: {**{name: groups[value][name] for name in names}, "pass_rate": _share(groups[value])}
        for value in sorted(groups)
    }


def _share(counts: Counter[str]) -> float | None:
    return counts["right"] / counts["samples"] if counts["samples"] else None


def _lengths(lengths: Sequence[int]) -> dict[str, float] | None:
    if not lengths:
        return None
    return {"mean": sum(lengths) / len(lengths), "median": median(lengths), "max": max(lengths)}
