"""The card of a sampled data set in Markdown: counts of its rows, dropped samples by reason, and its origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from r1_lightning.rollout.rejection_sampling import RejectionSampling


@dataclass(frozen=True)
class Origin:
    """Origin of a data set: the command, the fingerprint's first digits, the code's commit, and the lineage of each input."""

    command: str
    fingerprint: str
    commit: str
    inputs: Mapping[str, str]


def render_card(counts: Mapping[str, Any], settings: RejectionSampling, origin: Origin) -> str:
    """Return the card as Markdown; `counts` are those of `counts.json`."""
    rules = {**asdict(settings.rules), **asdict(settings.rules)["readable"]}
    del rules["readable"]
    if settings.rewrite_as is not None:
        rules["kept samples rewritten in the form"] = settings.rewrite_as
    sections = [
        "# Data card",
        f"{counts['rows']} rows; {counts['samples']} samples of {counts['sampled_problems']} problems, of which "
        f"{counts['right']} are right ({_percent(counts['pass_rate'])}) and {counts['kept']} were kept.",
        "## The data set",
        _table(
            ("source", "available", "left out: contaminated", "rows"),
            ((name, s["available"], s["contaminated"], s["rows"]) for name, s in counts["sources"].items()),
        ),
        *(_rows(key, groups, counts["rows"]) for key, groups in counts["data_set"].items()),
        "## The pool",
        "What was sampled, before the shares were taken and without the rows of other sources.",
        *(_by(key, groups) for key, groups in counts["by"].items()),
        "### Samples: kept, or dropped and why",
        "The first reason counts, in this order.",
        _table(("samples that are", "number"), counts["samples_by_fate"].items()),
        "### Problems that were not sampled",
        _table(("why", "number"), counts["not_sampled"].items()),
        "### Lengths in tokens",
        _table(("samples", "mean", "median", "max"), _lengths(counts["tokens"])),
        "## Decontamination",
        f"No row shares {settings.contamination_ngram} words in a row (in Chinese: characters) with a question of these, "
        "or is such a question.",
        _table(
            ("benchmark", "questions", "problems found"),
            ((name, n, counts["contaminated_by"].get(name, 0)) for name, n in counts["benchmarks"].items()),
        ),
        "## Rules",
        _table(("rule", "value"), rules.items()),
        "## Origin",
        f"    {origin.command}",
        f"Fingerprint {origin.fingerprint}, commit {origin.commit}. `r1 lineage FOLDER` prints the tree.",
        *(f"Input `{role}`:\n\n{_indented(tree)}" for role, tree in origin.inputs.items()),
    ]
    return "\n\n".join(sections) + "\n"


def render_table(counts: Mapping[str, Any]) -> str:
    """Return the table that the command prints: rows, pass rate, and the samples by fate."""
    lines = [
        ("rows of the data set", counts["rows"]),
        ("samples", counts["samples"]),
        ("share that is right", _percent(counts["pass_rate"])),
        *((f"  {fate}", number) for fate, number in counts["samples_by_fate"].items() if number),
        *((f"problems not sampled: {why}", number) for why, number in counts["not_sampled"].items() if number),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _rows(key: str, groups: Mapping[str, int], total: int) -> str:
    return _table((key, "rows", "share"), ((value, n, _percent(n / total)) for value, n in groups.items()))


def _by(key: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    names = ("problems", "samples", "right", "kept")
    rows = ((value, *(g[name] for name in names), _percent(g["pass_rate"])) for value, g in groups.items())
    return f"### By {key}\n\n{_table((key, *names, 'pass rate'), rows)}"


def _lengths(tokens: Mapping[str, Mapping[str, float] | None]) -> Iterable[Sequence[Any]]:
    for name, lengths in tokens.items():
        yield (name, *("-" if lengths is None else f"{lengths[column]:.1f}" for column in ("mean", "median", "max")))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
