"""README's table of what has run where, made from the files that runs have left under reports/.

A place counts as run only where such a file says so; "not run" is what the table says of everything else. On the CPU these are the
learning report (its configuration names the accelerator) and the killed runs; on SLURM also the jobs that were pre-empted;
everywhere else the JSON files of `benchmarks/gpu/report.py`, below the folder of the place.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.table import write_between_markers

ROOT = Path(__file__).resolve().parents[1]
README, REPORTS = ROOT / "README.md", ROOT / "reports"
NOT_RUN = "not run"
SHORT_COMMIT = 10
# What else a reader should know of a place where nothing has run.
FAKE_VLLM = "`rollout=vllm` is tested against a fake of vLLM's interface only (`tests/rollout/test_vllm_sampler.py`)"
ONE_MACHINE = "jobs run on a SLURM of one machine in tests only (`tests/run/test_slurm_jobs.py`)"
# Reports over seeds on the CPU: what tells one run from another in their rows, and what the runs are.
RUNS = {
    "r1_tiny": (("seed", "model"), "models and stages of R1 in miniature, measured or timed"),
    "moe_in_rl": (
        ("seed", "router", "mtp_loss_weight"),
        "runs of the miniature with other routers and MTP losses in RL",
    ),
    "reward_hacking": (("seed", "run"), "long runs of RL against a reward model or the rule beside it"),
    "language_consistency": (
        ("task", "seed", "weight"),
        "models before and after RL without or with a language reward",
    ),
    "real_checkpoint": (
        ("part", "seed"),
        "parts of a report on a published checkpoint: as it is, RL with a student, SFT",
    ),
    "fp8_in_rl": (("seed", "arm"), "GRPO runs of the miniature in FP8 (emulated), BF16 and both mixed"),
    "fp8_vs_bf16": (("seed", "arm"), "pre-trainings of the miniature in FP8 (emulated), BF16 and FP32"),
}

# Of reports/kill_9: a run of two stages, of a graph, of one stage, of one stage in two processes.
KILLED = ("results.csv", "graph.csv", "stages.csv", "ranks.csv")

Found = list[tuple[str, str]]  # what has run, and the folder that shows it


def table(reports: Path = REPORTS) -> str:
    """The table in Markdown, from what lies under `reports`."""
    lines = ["| where | what has run | shown by |", "|---|---|---|"]
    for place, (find, otherwise) in PLACES.items():
        found = find(reports)
        what = "; ".join(text for text, _ in found) or NOT_RUN
        shown = ", ".join(dict.fromkeys(f"[`reports/{name}`](reports/{name})" for _, name in found)) or otherwise
        lines.append(f"| {place} | {what} | {shown} |")
    return "\n".join(lines)


def on_cpu(reports: Path) -> Found:
    """The learning report, if its runs were on a CPU, those of `RUNS`, and the killed runs."""
    found: Found = []
    learnt, config = reports / "r1_zero_tiny" / "results.csv", reports / "r1_zero_tiny" / "config.yaml"
    if learnt.is_file() and config.is_file():
        accelerator = yaml.safe_load(config.read_text(encoding="utf-8"))["trainer"]["accelerator"]
        seeds = {row["seed"] for row in _rows(learnt)}
        if accelerator == "cpu" and seeds:
            text = f"the miniature R1-Zero (pre-training, GRPO, evaluation) with {len(seeds)} seeds"
            found.append((text, "r1_zero_tiny"))
    for name, (run_is, what) in RUNS.items():
        if (results := reports / name / "results.csv").is_file():
            runs = {tuple(row[field] for field in run_is) for row in _rows(results)}
            found.append((f"{len(runs)} {what}", name))
    killed = [row for name in KILLED if (path := reports / "kill_9" / name).is_file() for row in _rows(path)]
    if killed:
        passed = sum(row["result"] == "passed" for row in killed)
        text = f"{sum(map(_kills, killed))} kills, after which {passed} of {len(killed)} runs ended with the same bits"
        found.append((text, "kill_9"))
    return found


def _kills(row: dict[str, str]) -> int:
    """Return the kills of a run that hit: their number, or the sum of the columns of its moments."""
    return (
        int(row["kills"]) if "kills" in row else sum(int(row[name]) for name in row if name not in ("seed", "result"))
    )


def on_slurm(reports: Path) -> Found:
    """The jobs that were pre-empted, and what lies below reports/slurm."""
    found, pre_empted = in_folder("slurm")(reports), reports / "preemption" / "slurm.csv"
    if pre_empted.is_file():
        rows = _rows(pre_empted)
        stages = ", ".join(dict.fromkeys(row["stage"] for row in rows))
        where = "a SLURM of one machine, CPU"
        found.append(
            (
                f"jobs of two tasks ({stages}), pre-empted {len(rows)} times, with the bits of an undisturbed run ({where})",
                "preemption",
            )
        )
    return found


def in_folder(name: str) -> Callable[[Path], Found]:
    """A finder of the JSON files below reports/`name`; a file in which nothing ran counts for nothing."""

    def find(reports: Path) -> Found:
        found: Found = []
        for path in sorted((reports / name).glob("*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            ran = list(dict.fromkeys(row["part"] for row in record["rows"] if row["value"] is not None))
            if ran:
                where = f"{record['hardware']['device']}, {record['date']}, commit {record['commit'][:SHORT_COMMIT]}"
                found.append((f"{', '.join(ran)} ({where})", name))
        return found

    return find


PLACES: dict[str, tuple[Callable[[Path], Found], str]] = {
    "CPU": (on_cpu, ""),
    "GPU": (in_folder("gpu"), ""),
    "several processes": (in_folder("several_processes"), ""),
    "SLURM": (on_slurm, ONE_MACHINE),
    "vLLM": (in_folder("vllm"), FAKE_VLLM),
}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> int:
    """Rewrite the table in README.md."""
    write_between_markers(table(), README)
    return 0
