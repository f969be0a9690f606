"""table.md of a table: what the paper prints beside what we measured, both intervals, and a verdict per claim.

All of it is computed from rows and points. The interval over questions is that of one model on other problems (cluster bootstrap,
as the evaluation gives it), here the mean of the seeds' bounds; the one over seeds is that of another training (Student's t).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from r1_lightning.functional.intervals import mean_interval_t
from r1_lightning.run.commands.recipe import Row, table_of
from r1_lightning.run.commands.tables.claims import NOT_MEASURED, Verdict, verdict_of, words_of
from r1_lightning.run.commands.tables.declared import Claim, Measured, Table
from r1_lightning.run.commands.tables.values import Cell, Values

SIGNIFICANT = 3
LEGEND = (
    "95 % intervals: over seeds by Student's t (another training), over questions by the bootstrap of whole questions (other "
    "problems; means of the seeds' bounds)."
)

RULES = {
    "before": "written before the first row was made",
    "after": "written when there were rows already, which a verdict counts like later ones",
}


def page(table: Table, rows: Sequence[Row], points: Sequence[Row]) -> str:
    """The Markdown of a table from its rows and points."""
    values = table.values(rows, points)
    seeds = sorted({seed for cells in values.values() for seed in cells}, key=int)
    lines = [
        f"# {table.title}",
        "",
        f"`python scripts/reproduce_table.py table={table.id}`",
        "",
        f"- Paper: {table.paper.source}",
        f"- Protocol: {table.protocol}",
        f"- Budget: {table.budget}",
        f"- Seeds: {', '.join(seeds) or 'none yet'}",
        f"- Rows: {_origin(table, rows)}",
        f"- Rules: {RULES[table.rules]}",
        "",
        _numbers(table, values),
        LEGEND,
        "",
        _claims(table, values),
    ]
    return "\n".join(lines)


def _origin(table: Table, rows: Sequence[Row]) -> str:
    place = f"`reports/{table.report}`" if table.report else "`results.csv`"
    filters = [arm.rows for arm in table.arms.values()] if table.report else [{}]
    used = (row for row in rows if any(all(row.get(key) == text for key, text in own.items()) for own in filters))
    commits = list(dict.fromkeys(row["commit"][:10] for row in used if row.get("commit")))
    return f"{place}, of commit {', '.join(commits)}" if commits else place


def _numbers(table: Table, values: Values) -> str:
    paper, lines = table.paper, {}
    columns = ["measure", "the paper", "ours", "over seeds", "over questions", "seeds"]
    for model in paper.also:
        for measure in table.measures.values():
            if printed := paper.cell(model, measure.paper):
                lines[model, measure.name] = [model, "", f"{printed} ({measure.paper})", "", "", "", ""]
    for arm in table.arms.values():
        for measure in table.measures.values():
            cells = values[arm.name, measure.name]
            printed = paper.cell(arm.paper, measure.paper)
            if cells or printed:
                beside = f"{printed} ({measure.paper})" if printed else ""
                lines[arm.name, measure.name] = [arm.label, measure.label, beside, *_ours(measure, cells)]
    head = table_of("model", columns, {})
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines.values())


def _ours(measure: Measured, cells: Mapping[str, Cell]) -> list[str]:
    found = [cell for cell in cells.values() if math.isfinite(cell.value)]
    if not found:
        return [NOT_MEASURED, "", "", "0"]
    average = mean(cell.value for cell in found)
    digits = measure.digits if measure.digits is not None else 1 if abs(average) > 1.5 else 3
    over_seeds = over_questions = ""
    if len(found) > 1:
        interval = mean_interval_t([cell.value for cell in found])
        over_seeds = f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    if all(math.isfinite(cell.low) and math.isfinite(cell.high) for cell in found):
        low, high = mean(cell.low for cell in found), mean(cell.high for cell in found)
        over_questions = f"[{low:.{digits}f}, {high:.{digits}f}]"
    return [f"{average:.{digits}f}", over_seeds, over_questions, str(len(found))]


def _claims(table: Table, values: Values) -> str:
    head = table_of("claim", ["rule", "measured", "verdict"], {})
    return head + "".join(f"| {' | '.join(_claim(claim, values))} |\n" for claim in table.claims)


def _claim(claim: Claim, values: Values) -> Iterator[str]:
    yield f"{claim.says} ({claim.where})"
    if claim.rule is None:
        yield from ("", str(claim.not_measured), f"**{NOT_MEASURED}**")
        return
    verdict = verdict_of(claim.rule, values)
    yield from (words_of(claim.rule), _measured(verdict), f"**{verdict.word}**")


def _measured(verdict: Verdict) -> str:
    if not verdict.of_seeds:
        return ""
    if verdict.interval is None:
        return f"{mean(verdict.of_seeds.values()):+.{SIGNIFICANT}g}, {len(verdict.of_seeds)} seed"
    shown = (f"{x:+.{SIGNIFICANT}g}" for x in (verdict.interval.estimate, verdict.interval.low, verdict.interval.high))
    lost = f"; no finite number of seed {', '.join(verdict.lost)}" if verdict.lost else ""
    return "{} [{}, {}]".format(*shown) + f", {len(verdict.of_seeds)} seeds{lost}"
