"""What a run leaves behind: every pair in a CSV file, and a table, for people, between two markers of README.md."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.floor import Peaks, floor_s
from benchmarks.pairs import Result
from r1_lightning.artefacts.lineage import commit
from r1_lightning.types.errors import require

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE / "README.md", HERE / "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
LIBRARIES = ("torch", "lightning", "transformers", "trl")
CPU_INFO = Path("/proc/cpuinfo")
CSV_COLUMNS = (
    *("date", "commit", "work", "unit", "opponent", "pair", "ours", "theirs", "speed_up"),
    *("our_setting", "their_setting", "processor", "threads"),
)


@dataclass(frozen=True)
class Machine:
    """Where and with what a run was made; no names of hosts or people."""

    day: str
    commit: str
    processor: str
    cores: int
    threads: int
    libraries: str
    load_at_start: float

    @classmethod
    def here(cls) -> Machine:
        """Call it before the work: the load average (1 minute) says how calm the machine was."""
        libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
        return cls(
            day=date.today().isoformat(),
            commit=commit(),
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            libraries=f"Python {platform.python_version()}, {libraries}",
            load_at_start=os.getloadavg()[0],
        )

    def describe(self) -> str:
        return (
            f"{self.day}, commit {self.commit[:10]}{'-dirty' * self.commit.endswith('-dirty')}. {self.processor}, "
            f"{self.cores} cores, {self.threads} torch threads; load before the run {self.load_at_start:.1f}. "
            f"{self.libraries}."
        )


def _processor() -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def render(results: Sequence[Result], machine: Machine) -> str:
    """The machine, the table in Markdown, and what each side's candidates gave in their trials."""
    pairs = len(results[0].speed_ups)
    lines = [
        machine.describe(),
        "",
        f"| work | ours | theirs | ours is faster, or smaller, by (median of {pairs}; least to most) |",
        "|---|---|---|---|",
    ]
    for result in results:
        contest, ratios = result.contest, result.speed_ups
        lines.append(
            f"| {contest.work} | {_quantity(result.ours.median, contest.unit)} "
            f"| {contest.opponent}: {_quantity(result.theirs.median, contest.unit)} "
            f"| **{result.speed_up:.2f}x** ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    lines += [
        "",
        "Settings tried, and the one that was measured; what its first run took longer (warm-up, compilation):",
        "",
    ]
    for result in results:
        for who, side in (("ours", result.ours), (result.contest.opponent, result.theirs)):
            if side.trials:
                tried = "; ".join(
                    f"{name}: {_quantity(value, result.contest.unit)}" for name, value in side.trials.items()
                )
                work = result.contest.work.partition(",")[0]
                lines.append(f"- {work}, {who}: **{side.setting}**, first run {side.first_s:.1f} s longer ({tried})")
    return "\n".join(lines)


def render_floors(results: Sequence[Result], peaks: Peaks) -> str:
    """Seconds of a step of ours beside the least that this machine could take (`floor.py`), and where they go."""
    lines = [
        f"A step of ours beside its floor, on this machine's peaks ({peaks.describe()}):",
        "",
        "| work, setting | measured | floor | floor of each part | measured by phase, in one more run |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        contest, setting = result.contest, result.ours.setting
        if parts := contest.floors.get(setting):
            measured_s, least_s = contest.step_s(result.ours.median), floor_s(parts, peaks)
            of_parts = "; ".join(f"{part.name} {part.seconds(peaks):.3f}" for part in parts)
            phases = "; ".join(f"{phase} {seconds:.3f}" for phase, seconds in result.phases.items())
            lines.append(
                f"| {contest.work}, {setting} | {measured_s:.3f} s | {least_s:.3f} s ({least_s / measured_s:.0%}) "
                f"| {of_parts} | {phases or 'not measured'} |"
            )
    return "\n".join(lines)


def _quantity(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if unit == "s/step" else f"{value:,.0f} {unit}"


def write_csv(results: Sequence[Result], machine: Machine, folder: Path = RESULTS) -> Path:
    """One line per pair in `folder`/<date>.csv, or <date>-2.csv, ... where that exists."""
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / f"{machine.day}.csv", 1
    while path.exists():
        number += 1
        path = folder / f"{machine.day}-{number}.csv"
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for result in results:
            writer.writerows(_csv_rows(result, machine))
    return path


def _csv_rows(result: Result, machine: Machine) -> list[tuple[object, ...]]:
    contest, ours, theirs = result.contest, result.ours, result.theirs
    what = (machine.day, machine.commit, contest.work, contest.unit, contest.opponent)
    how = (ours.setting, theirs.setting, machine.processor, machine.threads)
    values = zip(ours.values, theirs.values, result.speed_ups, strict=True)
    return [(*what, pair, *(f"{value:.6g}" for value in three), *how) for pair, three in enumerate(values, 1)]


def write_between_markers(text: str, path: Path = README) -> None:
    """Replace what stands between the markers of `path`, once each; `InvalidInput` where they are not."""
    page = path.read_text(encoding="utf-8")
    once = page.count(BEGIN) == 1 and page.count(END) == 1 and page.index(BEGIN) < page.index(END)
    require(once, "page", path.name, f"it must hold {BEGIN} and, after it, {END}, once each")
    head, tail = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    path.write_text(f"{head}\n{text}\n{tail}", encoding="utf-8")
