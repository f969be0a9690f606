"""The stage graph as text: the tree of stages, the table of their results, and the table of their times.

The table of results is the paper's table of stages (Nature table 2, R1v2 table 3) for any graph: a column per stage in the order of
making, a line per held-out measure. A stage without an evaluation has no column.
"""

from __future__ import annotations

from collections.abc import Iterator

from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.work import Work, work_in
from r1_lightning.run.graph.node import Node, stages_of

MEASURED = "eval/"  # prefix of the metrics of held-out problems


def tree(node: Node, role: str = "", indent: str = "") -> str:
    """Return one line per stage, the target first, with its status; a stage that is needed twice is expanded only once."""
    return "\n".join(_lines(node, role, indent, set()))


def _lines(node: Node | Artefact, role: str, indent: str, seen: set[str]) -> Iterator[str]:
    label = f"{indent}{role + ': ' if role else ''}"
    short = node.fingerprint[:SHORT_DIGITS]
    if isinstance(node, Artefact):
        yield f"{label}{node.stage} {short} given: {node.folder}"
        return
    if short in seen:
        yield f"{label}{node.stage.name} {short} (as above)"
        return
    seen.add(short)
    yield f"{label}{node.stage.name} {short} {status(node)}"
    for name, source in node.inputs.items():
        yield from _lines(source, name, indent + "  ", seen)


def status(node: Node) -> str:
    """Return a stage's status: there, to be resumed, or to be made."""
    found = node.found()
    if found is None:
        return "to be made"
    return f"there: {found.folder}" if found.complete else f"to be resumed: {found.folder}"


def _named(node: Node) -> dict[str, Node]:
    """Return every stage of the graph once, by name, in the order of making.

    If two stages have one name (a student's base beside its teacher's), the later one's name gets digits of its fingerprint.
    """
    named: dict[str, Node] = {}
    for stage in stages_of(node):
        name = stage.stage.name
        named[f"{name} {stage.fingerprint[:SHORT_DIGITS]}" if name in named else name] = stage
    return named


def measured_stages(node: Node) -> dict[str, dict[str, float]]:
    """Return the held-out measures of every finished stage that has any, by `_named` name, in the order of making."""
    results: dict[str, dict[str, float]] = {}
    for name, stage in _named(node).items():
        found = stage.found()
        if found is not None and found.complete:
            row = {
                key[len(MEASURED) :]: value
                for key, value in found.metrics.items()
                if key.startswith(MEASURED) and value is not None
            }
            if row:
                results[name] = row
    return results


def time_table(node: Node) -> str:
    """Return a Markdown table of the wall-clock time of making each stage of the graph, and its share of the total.

    The time of killed processes is unknown; such an entry begins with "over".
    """
    found = {name: artefact.folder for name, stage in _named(node).items() if (artefact := stage.found()) is not None}
    taken = {name: work for name, folder in found.items() if (work := work_in(folder)) is not None}
    total = sum(work.seconds for work in taken.values())
    if not total:
        return ""
    whole = Work(total, sum(work.n_unknown for work in taken.values()))
    lines = ["| stage | minutes | share |", "|---|---|---|"]
    for name, work in [*taken.items(), ("together", whole)]:
        over = "over " if work.n_unknown else ""
        lines.append(f"| {name} | {over}{work.seconds / 60:.1f} | {100 * work.seconds / total:.0f} % |")
    return "\n".join(lines)


def stage_table(results: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table with a column per stage and a line per measure, a dash for a missing value; empty without results."""
    if not results:
        return ""
    measures = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = ["| held out | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for name in measures:
        cells = [_cell(row.get(name)) for row in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value > 1.5 else f"{value:.3f}"
