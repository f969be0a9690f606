"""How cost grows with the work: `python benchmarks/growth.py --axis prompt --contest grpo` draws one curve, ours and the peer's.

Contests of `benchmarks/run.py` over one axis of the work at a time, with an eighth of its completions per step. At each point both
sides' candidates are tried, and the best are measured in pairs, alternately (`benchmarks/pairs.py`). A row per pair goes into a CSV
file as soon as its point is measured, so that a run which is cut off goes on where it was.

The table gives each side's exponent of growth, the slope of log cost over log value: cost ~ value^exponent over the points that
were measured, where cost is seconds per step, or per token. Whether ours grows faster is read from the pairs' ratios, whose noise
is that of a pair and not of the machine's day: the slope of log(ours / theirs), with twice its standard error.

`--floors` adds what share of each side's time the FLOPs and bytes of the work would take at this machine's peaks (`floor.py`),
measured now: a side that begins far from its floor can grow slowly, because what it loses does not grow with the work.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

from benchmarks import grpo_step, pretraining, sampling
from benchmarks.command import BAD_INPUT, silence_warnings
from benchmarks.floor import Part, Peaks, floor_s, grpo_parts, measured_peaks, sampling_part, training_parts
from benchmarks.growth_axes import AXES, BASE, TINY, world_at
from benchmarks.pairs import Contest, Result, compare
from benchmarks.setting import World
from benchmarks.table import RESULTS, Machine
from r1_lightning.run.build.torch_setup import keep_freed_memory
from r1_lightning.types.errors import InvalidInput, require, require_int

CONTESTS: dict[str, Callable[[World], Contest]] = {
    "pretraining": pretraining.contest,
    "sampling": sampling.contest,
    "grpo": grpo_step.even_contest,
}
FLOORS: dict[str, Callable[[World], list[Part]]] = {
    "pretraining": lambda world: training_parts(world, _tokens("pretraining", world), world.size.train_row_tokens),
    "sampling": lambda world: [sampling_part(world, world.precision, world.size.new_tokens)],
    "grpo": lambda world: grpo_parts(world, world.size.new_tokens),
}
COLUMNS = (
    *("date", "commit", "axis", "value", "contest", "unit", "opponent", "pair", "ours", "theirs", "speed_up"),
    *("our_setting", "their_setting", "processor", "threads"),
)
PAIRS = 3
FOLDER = RESULTS / "growth"
Row = Mapping[str, str]


@dataclass(frozen=True)
class Slope:
    """Of a straight line through points, with its standard error; infinite where two points leave no residue to judge by."""

    value: float
    error: float


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Least squares of y over x. Raises InvalidInput unless there are two different x."""
    n, mean_x = len(points), sum(x for x, _ in points) / max(len(points), 1)
    mean_y = sum(y for _, y in points) / max(n, 1)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    require(spread > 0, "points", n, "a curve needs two different values")
    found = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    residue = sum((y - mean_y - found * (x - mean_x)) ** 2 for x, y in points)
    return Slope(found, math.sqrt(residue / (n - 2) / spread) if n > 2 else math.inf)


def cost(row: Row, side: str) -> float:
    """Seconds per step, or per token."""
    value = float(row[side])
    return 1 / value if row["unit"] == "tokens/s" else value


def verdict(rows: Sequence[Row]) -> tuple[Slope, Slope, Slope, str]:
    """The exponents of ours, theirs and their ratio, and what the last says."""
    places = [math.log(float(row["value"])) for row in rows]
    ours, theirs = ([math.log(cost(row, side)) for row in rows] for side in ("ours", "theirs"))
    ratio = [own - other for own, other in zip(ours, theirs, strict=True)]
    found, other, difference = (slope(list(zip(places, costs, strict=True))) for costs in (ours, theirs, ratio))
    if difference.value - 2 * difference.error > 0:
        said = "**ours grows faster**"
    else:
        said = "theirs grows faster" if difference.value + 2 * difference.error < 0 else "no difference is shown"
    return found, other, difference, said


def render(rows: Sequence[Row]) -> str:
    """A line per value with medians of its pairs, and below it the exponents."""
    first = rows[0]
    lines = [
        f"{first['contest']} over {first['axis']}, {first['unit']}, beside {first['opponent']}:",
        "",
        f"| {first['axis']} | ours | theirs | ours is faster by (least to most) |",
        "|---|---|---|---|",
    ]
    for value in sorted({float(row["value"]) for row in rows}):
        here = [row for row in rows if float(row["value"]) == value]
        ours, theirs, ratios = (sorted(float(row[name]) for row in here) for name in ("ours", "theirs", "speed_up"))
        middle = len(here) // 2
        lines.append(
            f"| {value:,.0f} | {ours[middle]:,.4g} | {theirs[middle]:,.4g} | **{ratios[middle]:.2f}x** "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    if len({row["value"] for row in rows}) > 1:
        own, other, difference, said = verdict(rows)
        lines += [
            "",
            f"Exponents of cost: ours {own.value:.2f}, theirs {other.value:.2f}; of the ratio {difference.value:+.2f} "
            f"(2 standard errors: {2 * difference.error:.2f}): {said}.",
        ]
    return "\n".join(lines)


def _tokens(contest: str, world: World) -> int:
    """Tokens of a step: those that are trained on, or drawn."""
    size = world.size
    return size.train_rows * size.train_row_tokens if contest == "pretraining" else size.completions * size.new_tokens


def render_floors(rows: Sequence[Row], worlds: Mapping[int, World], peaks: Peaks) -> str:
    """A line per value: the floor of a step, and its share of the median cost of each side."""
    contest, unit = rows[0]["contest"], rows[0]["unit"]
    lines = [
        f"Floors on {peaks.describe()}:",
        "",
        f"| {rows[0]['axis']} | floor of a step | share of ours | share of theirs |",
        "|---|---|---|---|",
    ]
    for value, world in worlds.items():
        least_s = floor_s(FLOORS[contest](world), peaks)
        steps = 1 / _tokens(contest, world) if unit == "tokens/s" else 1
        here = [row for row in rows if row["value"] == str(value)]
        shares = [least_s * steps / median(cost(row, side) for row in here) for side in ("ours", "theirs")]
        lines.append(f"| {value:,} | {least_s:.4g} s | {shares[0]:.0%} | {shares[1]:.0%} |")
    return "\n".join(lines)


def summary(folder: Path) -> str:
    """A line per curve in `folder`, by contest and axis; those that may compile are left out. No curve: a table without lines."""
    lines = [
        "| contest | axis | ours is faster by | exponents of ours, theirs | of the ratio (2 standard errors) |",
        "|---|---|---|---|---|",
    ]
    for contest, axis in product(CONTESTS, AXES):
        rows = read(folder / f"{contest}_over_{axis}.csv")
        values = sorted({int(row["value"]) for row in rows})
        if len(values) < 2:
            continue
        ratios = [median(float(row["speed_up"]) for row in rows if row["value"] == str(value)) for value in values]
        own, other, difference, said = verdict(rows)
        cells = (
            contest,
            f"{axis} {', '.join(f'{value:,}' for value in values)}",
            ", ".join(f"{ratio:.2f}" for ratio in ratios),
            f"{own.value:.2f}, {other.value:.2f}",
            f"{difference.value:+.2f} ({2 * difference.error:.2f}): {said}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read(path: Path) -> list[dict[str, str]]:
    """The rows that are there. Raises InvalidInput if the file is none of ours."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        require(
            tuple(table.fieldnames or ()) == COLUMNS, "file", path.name, f"its columns must be {', '.join(COLUMNS)}"
        )
        return list(table)


def append(path: Path, rows: Sequence[Row]) -> None:
    """Write a point's rows at once, so that a point is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def rows_of(result: Result, machine: Machine, axis: str, value: int, contest: str) -> list[dict[str, Any]]:
    """One row per pair."""
    what = (machine.day, machine.commit, axis, value, contest, result.contest.unit, result.contest.opponent)
    how = (result.ours.setting, result.theirs.setting, machine.processor, machine.threads)
    pairs = zip(result.ours.values, result.theirs.values, result.speed_ups, strict=True)
    found = [(*what, number, *(f"{x:.6g}" for x in three), *how) for number, three in enumerate(pairs, 1)]
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


def measure(axis: str, contest: str, options: argparse.Namespace) -> None:
    """The points of one curve that its file lacks, then its table."""
    path = options.out / f"{contest}_over_{axis}{'_compiled' if options.compile else ''}.csv"
    values = options.points or AXES[axis].values
    missing = [value for value in values if not any(row["value"] == str(value) for row in read(path))]
    machine, base = Machine.here(), replace(TINY if options.quick else BASE, compile=options.compile)
    for number, value in enumerate(missing, 1):
        done = len(values) - len(missing)
        print(f"{contest} over {axis}: {value}, point {done + number} of {len(values)}", flush=True)
        world = world_at(axis, value, base)
        result = compare(CONTESTS[contest](world), options.pairs, say=lambda line: print(line, flush=True))
        append(
            path,
            [{name: str(cell) for name, cell in row.items()} for row in rows_of(result, machine, axis, value, contest)],
        )
    print(f"\n{render(read(path))}\n\nevery pair: {path}", flush=True)
    if options.floors:
        worlds = {value: world_at(axis, value, base) for value in values}
        print(f"\n{render_floors(read(path), worlds, measured_peaks())}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen curves; returns the exit code."""
    options = _options(arguments)
    try:
        require_int("--pairs", options.pairs, 1)
        for value in options.points or ():
            require_int("--points", value, 1)
        if options.summary:
            print(summary(options.out))
            return 0
        silence_warnings()
        keep_freed_memory()
        for contest in [options.contest] if options.contest else CONTESTS:
            for axis in [options.axis] if options.axis else AXES:
                if contest in AXES[axis].contests:
                    measure(axis, contest, options)
                else:
                    said = f"it does not change {contest}; choose among {', '.join(AXES[axis].contests)}"
                    require(not (options.axis and options.contest), "--axis", axis, said)
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/growth.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--axis", choices=AXES, help="what grows (all, one after the other)")
    parser.add_argument("--contest", choices=CONTESTS, help="what is measured (all that the axis changes)")
    parser.add_argument("--points", type=int, nargs="+", help="values of the axis in place of its own")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs (ours, theirs) per point (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="ours may compile, and both may compute in BF16")
    parser.add_argument("--summary", action="store_true", help="measure nothing: a line for each curve in --out")
    parser.add_argument(
        "--floors", action="store_true", help="beside each side the floor of its FLOPs and bytes, in FP32"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny rehearsal: its numbers mean nothing; give --out")
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help="folder of the CSV files; points that are there are not measured again"
    )
    options = parser.parse_args(arguments)
    if options.quick and options.out == FOLDER:
        parser.error("--quick needs --out FOLDER: its numbers must not stand beside real ones")
    if options.floors and options.compile:
        parser.error("--floors is for numbers in FP32: without --compile")
    return options


if __name__ == "__main__":
    sys.exit(main())
