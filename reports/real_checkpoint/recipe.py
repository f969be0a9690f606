"""A published checkpoint learns: SFT on GSM8K, GRPO on arithmetic, distillation into a smaller student, over seeds.

The checkpoint is a folder in HuggingFace's form below `checkpoints/`; GSM8K's files lie in `paths.data`. The parts of a report:

    before     the checkpoint answers GSM8K's questions as it is, once
    grpo       R1-Zero's way: RL on one-digit arithmetic from the checkpoint itself, rewarded by a rule that reads the last number;
               then the student, the checkpoint without a fifth of its layers, learns by distillation what the trained model says
    sft        R1's cold start: the checkpoint learns worked solutions of GSM8K in R1's form (a think block, then a summary), and
               answers the same questions again

A claim is read off the rows of one seed, and stands in the table for every seed, also where it does not hold. The claims:

    RL with a rule-based reward raises accuracy         DeepSeek-R1, arXiv:2501.12948v2, section 2
    a smaller model learns from the larger one          v1 section 4.1
    a cold start teaches the form                       v2 section 3
"""

from __future__ import annotations

import json
import random
import shutil
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.work import work_in
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.commands.evaluate import evaluate, opened_for_measuring
from r1_lightning.run.commands.recipe import Made, Recipe, Row, spread, table_of, verdict
from r1_lightning.run.commands.report_runs import commit_at_start, made_by, planned_fingerprint, rollout_means, train
from r1_lightning.run.commands.write_traces import write_traces
from r1_lightning.types.errors import require

CHECKPOINTS = Path("checkpoints")
DATA = Path("runs", "real_checkpoint")  # where the text of the runs is written
TRACES, PROBLEMS = DATA / "gsm8k_traces.jsonl", DATA / "arithmetic"
N_TRACES = 7_000  # of GSM8K's 7,473 training problems
BEFORE, GRPO, SFT = "before", "grpo", "sft"
QUESTIONS = 200  # of GSM8K, held out
ANSWERS = {"problems": QUESTIONS, "samples": 1, "sampling_temperature": 0.01, "max_new_tokens": 192}
DROPPED_LAYERS = slice(20, 26)  # of the checkpoint's, from its deeper middle (Gromov et al. 2024, arXiv:2403.17887)
FIELDS = ("checkpoint", "part", "seed", "model", "task", "measure", "value", "low", "high", "fingerprint", "commit")
MEANS = ("reward_mean", "completion_tokens_mean", "finished_fraction")
CURVE_FIELDS = ("checkpoint", "part", "seed", "step", *MEANS)
GSM8K, ARITHMETIC = "GSM8K", "arithmetic"
HELD_OUT = {
    GSM8K: f"{QUESTIONS} held-out questions, the likeliest completion of each",
    ARITHMETIC: "58 held-out problems, 4 completions of each at temperature 1",
}
SHOWN = {
    "pass_at_1_lenient": "right, in any form",
    "pass_at_1": "right and well formed",
    "format_rate": "well formed",
    "completion_tokens_mean": "tokens per completion",
    "finished_rate": "completions that end",
}
MINUTES = "minutes"

COMMON = "model=hf precision=bf16"
SFT_WORDS = (
    "stage=sft task=gsm8k task.template=checkpoint data.examples_per_batch=16 data.micro_batches=4 data.row_tokens=512 "
    f"data.too_long=drop data.examples.file={TRACES} stage.max_steps=16 stage.evaluation=null optim.lr=1.0e-4"
)
# The reward is a right last number, in any form: there is no form to learn.
ASKED = (
    f"task=rows task.source.train.file={PROBLEMS / 'train.jsonl'} task.template=r1 stage.evaluation.problems=58 "
    "stage.evaluation.samples=4 stage.evaluation.max_new_tokens=16"
)
GRPO_WORDS = (
    "stage=grpo reward=r1_math +reward.rewards.accuracy.strict=false ~reward.rewards.format ~reward.weights.format "
    "~reward.rewards.language ~reward.weights.language rollout.prompts_per_rollout=8 rollout.group_size=8 "
    "rollout.minibatches_per_rollout=1 rollout.micro_batches=2 rollout.max_new_tokens=16 rollout.row_tokens=64 rollout.max_rows=64 "
    "stage.max_steps=20 optim.lr=1.0e-5"
)
DISTILL_WORDS = (
    "stage=distill data.items_per_batch=32 data.micro_batches=2 data.row_tokens=64 stage.max_steps=60 optim.lr=3.0e-4"
)


RIGHT = "pass_at_1_lenient"
CLAIMS = {  # task and measure, the model before and the model after
    "GRPO's model is right more often than the checkpoint": (ARITHMETIC, RIGHT, "checkpoint", "grpo"),
    "the student is right more often after distillation": (ARITHMETIC, RIGHT, "student before", "student"),
    "SFT teaches the form": (GSM8K, "format_rate", "checkpoint", "sft"),
    "SFT answers more of GSM8K's questions": (GSM8K, RIGHT, "checkpoint", "sft"),
}

Values = Mapping[tuple[str, str, str], float]  # (model, task, measure) of one seed


def overrides(checkpoint: str, part: str, seed: int) -> list[str]:
    """The arguments of `scripts/train.py` for the first stage of a part; the checkpoint as it is goes with that of SFT."""
    words = f"{GRPO_WORDS} {ASKED}" if part == GRPO else SFT_WORDS
    return [*words.split(), *COMMON.split(), f"init_from={folder_of(checkpoint)}", f"seed={seed}"]


def folder_of(checkpoint: str) -> Path:
    """Return the checkpoint's folder, or raise `InvalidInput`; writes the text of the runs if it is not there."""
    folder = CHECKPOINTS / checkpoint
    allowed = f"{folder} must be a folder with a checkpoint in HuggingFace's form"
    require((folder / "config.json").is_file(), "--checkpoint", checkpoint, allowed)
    if not TRACES.exists():
        print(write_traces(["task=gsm8k", f"count={N_TRACES}", f"file={TRACES}"]), flush=True)
    for name, rows in arithmetic().items():
        if not (PROBLEMS / f"{name}.jsonl").exists():
            PROBLEMS.mkdir(parents=True, exist_ok=True)
            write_text(PROBLEMS / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def arithmetic() -> dict[str, list[dict[str, str]]]:
    """Return questions such as "What is 7 x 8?", of numbers from 1 to 9, by "train" and "test".

    A third is held out, and 8 x 7 with 7 x 8: no question is answered by another one with its numbers exchanged.
    """
    pairs = [(sign, a, b) for sign in "x+-" for a in range(1, 10) for b in range(a, 10) if sign != "x" or a > 1]
    random.Random(0).shuffle(pairs)
    values = {"x": lambda a, b: a * b, "+": lambda a, b: a + b, "-": lambda a, b: a - b}
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for number, (sign, a, b) in enumerate(pairs):
        for left, right in sorted({(a, b), (b, a)}):
            if sign != "-" or left >= right:
                row = {"question": f"What is {left} {sign} {right}?", "answer": str(values[sign](left, right))}
                rows["train" if number % 3 else "test"].append(row)
    return rows


def write_student(checkpoint: Path, folder: Path) -> None:
    """Write the checkpoint without `DROPPED_LAYERS` to `folder`, with its tokenizer, if nothing is there."""
    if folder.exists():
        return
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32")
    del model.model.layers[DROPPED_LAYERS]
    model.config.num_hidden_layers = len(model.model.layers)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    for path in checkpoint.iterdir():
        if path.name.startswith(("tokenizer", "chat_template", "generation")):
            shutil.copy(path, unfinished)
    unfinished.rename(folder)


def make(checkpoint: str, part: str, seed: int, root: Path) -> Made:
    """The rows of one part, and the curve of its RL stage."""
    first, run = overrides(checkpoint, part, seed), {"checkpoint": checkpoint, "part": part, "seed": seed}
    if part == BEFORE:
        origin = {"fingerprint": planned_fingerprint(*first), "commit": commit_at_start()}
        asked = ["task=gsm8k", "task.template=checkpoint"]
        return Made([{**run, **origin, **row} for row in answers("checkpoint", folder_of(checkpoint), asked)])
    trained, _ = train(first, root)
    if part == SFT:
        found = [*answers("sft", trained.folder), minutes_of("sft", trained)]
        return Made([{**run, **made_by(trained), **row} for row in found])
    student = distilled(checkpoint, trained, seed, root)
    rows = measured(trained, {"eval_base": "checkpoint", "eval": "grpo"})
    rows += measured(student, {"eval_base": "student before", "eval": "student"})
    return Made([{**run, **row} for row in rows], [{**run, **point} for point in rollout_means(trained, MEANS)])


def distilled(checkpoint: str, teacher: Artefact, seed: int, root: Path) -> Artefact:
    """Make the student of `teacher`, whose own completions of the training questions are the text."""
    small, text = root / f"student-{checkpoint}", root / f"completions-{teacher.fingerprint[:10]}.jsonl"
    write_student(folder_of(checkpoint), small)
    write_completions(teacher, seed, text)
    from_files = [f"init_from={small}", f"+stage.inputs.teacher.folder={teacher.folder}", f"data.traces.file={text}"]
    words = [*f"{DISTILL_WORDS} {ASKED} {COMMON}".split(), *from_files, f"seed={seed}"]
    return train(words, root)[0]


def write_completions(teacher: Artefact, seed: int, path: Path) -> None:
    """Write what `teacher` answers rightly, and ends, to the training questions, four samples each, if nothing is there."""
    if path.exists():
        return
    parts = build_parts(opened_for_measuring(teacher.folder, ())[1], teacher)
    problems = [parts["source"].train_problem(seed, number) for number in range(len(arithmetic()["train"]))]
    settings = EvaluationConfig(len(problems), samples=4, max_new_tokens=16)
    evaluator = Evaluator(problems, parts["tokenizer"], parts["template"], settings, seed)
    judge = MathReward(form="r1", strict=False)
    text = ""
    for problem, samples in zip(problems, evaluator.completions(parts["backbone"].eval()), strict=True):
        for sample in samples:
            if sample.finished and judge(problem, sample).score == 1.0:
                text += json.dumps({"question": problem.question, "completion": sample.text}) + "\n"
    write_text(path, text)


def answers(model: str, folder: Path, task: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """What a model answers to GSM8K's held-out questions, with 95 % intervals."""
    _, measures = evaluate(folder, ANSWERS, task=task)
    for name in SHOWN:
        found = measures[name]
        ends = {"low": f"{found.interval.low:.6g}", "high": f"{found.interval.high:.6g}"}
        yield {"model": model, "task": GSM8K, "measure": name, "value": f"{found.value:.6g}", **ends}


def measured(stage: Artefact, models: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a stage measured on held-out arithmetic, and its minutes; `models` takes a metric's prefix to the model, itself last."""
    found = {(model, name): stage.metrics[f"{of}/dataset/{name}"] for of, model in models.items() for name in SHOWN}
    rows = [
        {"model": model, "task": ARITHMETIC, "measure": name, "value": f"{v:.6g}"} for (model, name), v in found.items()
    ]
    return [{**made_by(stage), **row} for row in [*rows, minutes_of(list(models.values())[-1], stage)]]


def minutes_of(name: str, stage: Artefact) -> dict[str, str]:
    """The minutes of all processes that worked on a stage and ended."""
    work = work_in(stage.folder)
    return {"model": name, "measure": MINUTES, "value": "" if work is None else f"{work.seconds / 60:.2f}"}


def render(rows: Sequence[Row]) -> str:
    """Markdown: every model before and after, the claims seed by seed, and the minutes."""
    by_seed: dict[str, dict[tuple[str, str, str], float]] = defaultdict(dict)
    for row in (row for row in rows if row["value"]):
        by_seed[row["seed"]][row["model"], row["task"], row["measure"]] = float(row["value"])
    once = {key: value for key, value in by_seed["0"].items() if key[:2] == ("checkpoint", GSM8K)}
    seeds = sorted({row["seed"] for row in rows if row["part"] != BEFORE}, key=int)
    values = {seed: {**once, **by_seed[seed]} for seed in seeds} or {"0": once}
    columns = [f"seed {seed}" for seed in values]
    claims = {words: [_verdict(*claim, of_seed) for of_seed in values.values()] for words, claim in CLAIMS.items()}
    timed = dict.fromkeys(key for of_seed in values.values() for key in of_seed if key[2] == MINUTES)
    minutes = {key[0]: [f"{v[key]:.1f}" if key in v else "not run" for v in values.values()] for key in timed}
    asked = {key[1] for of_seed in values.values() for key in of_seed}
    models = [_models(task, what, list(values.values())) for task, what in HELD_OUT.items() if task in asked]
    return "\n".join([*models, table_of("claim", columns, claims), table_of("minutes", columns, minutes)])


def _models(task: str, what: str, by_seed: Sequence[Values]) -> str:
    models = list(dict.fromkeys(model for values in by_seed for model, of, _ in values if of == task))
    cells = {
        words: [spread([v[model, task, measure] for v in by_seed if (model, task, measure) in v]) for model in models]
        for measure, words in SHOWN.items()
    }
    title = f"{task}: {what}; mean over seeds [smallest, largest]."
    return f"{title}\n\n{table_of('', models, cells)}"


def _verdict(task: str, measure: str, before: str, after: str, values: Values) -> str:
    if not {(before, task, measure), (after, task, measure)} <= set(values):
        return "not run"
    difference = values[after, task, measure] - values[before, task, measure]
    return verdict(difference, difference > 0)


def draw(points: Sequence[Row], path: Path) -> None:
    """Accuracy, reward and length of GRPO's rollouts over its steps: a line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(MEANS), figsize=(9, 2.8), constrained_layout=True)
    for axis, name in zip(axes, MEANS, strict=True):
        for seed in sorted({point["seed"] for point in points}, key=int):
            own = [point for point in points if point["seed"] == seed]
            axis.plot([int(p["step"]) for p in own], [float(p[name]) for p in own], linewidth=1, label=f"seed {seed}")
        axis.set_title(name.removesuffix("_mean").replace("_", " "), fontsize=9)
        axis.set_xlabel("optimizer step")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def runs(options: Namespace) -> Iterator[tuple[str, str, int]]:
    """The checkpoint as it is, once; then RL with its student, then SFT, each over seeds."""
    yield options.checkpoint, BEFORE, 0
    for part in (GRPO, SFT):
        yield from ((options.checkpoint, part, seed) for seed in options.seeds)


def add_options(parser: ArgumentParser) -> None:
    """Which checkpoint learns."""
    words = f"a folder below {CHECKPOINTS}/ with a model of the Llama family (default: SmolLM2-135M-Instruct)"
    parser.add_argument("--checkpoint", metavar="NAME", default="SmolLM2-135M-Instruct", help=words)


RECIPE = Recipe(
    seeds=[0, 1, 2],
    key={"checkpoint": str, "part": str, "seed": int},
    fields=FIELDS,
    runs=runs,
    overrides=overrides,
    make=make,
    table=render,
    curve_fields=CURVE_FIELDS,
    draw=draw,
    add_options=add_options,
    is_of_run=lambda row: not row["model"].startswith("student"),
)
