"""A run that is told to stop again and again: are completion lengths and weights those of an undisturbed run?

Pre-emption must not favour short answers. A rollout that is cut short has finished its short completions and not its long ones; if
it went on with those, training would see more short ones. Here it is drawn again by keyed draws, to the same tokens. One very small
run of R1-Zero is made twice: undisturbed, and with a SIGUSR1 at random moments (while torch is imported, in pre-training, in a
rollout, in evaluation), after each of which the same command is started again. `results.csv` holds what came out and how long the
signals took, `curves.csv` how many completions of each length the rollouts had.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import lightning as L

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.store import WEIGHTS, Artefact
from r1_lightning.run.commands.recipe import Made, Recipe
from r1_lightning.run.commands.report_runs import PROGRAM, made_by, train
from r1_lightning.run.config.exit_codes import AGAIN
from r1_lightning.types.errors import InvalidInput

FIELDS = ("seed", "run", "measure", "value", "fingerprint", "commit")
CURVE_FIELDS = ("seed", "run", "tokens", "completions")
UNDISTURBED, PREEMPTED = "undisturbed", "pre-empted"
STARTING_S, WORKING_S = (0.3, 6.0), (0.0, 12.0)  # from the start, or from the first sign of work, to the signal
# Of each start: the beginning of the line of progress that its signal waits for; "" does not wait.
MOMENTS = ("", "pretrain: ") * 3 + ("", "grpo: ") * 3
LENGTHS = "lengths"  # the folder of the lengths of each rollout, in an artefact's folder
SMALL = [
    "experiment=r1_zero_tiny",
    "model.d_model=48",  # a tenth of the parameters of `tiny`, so that the report takes minutes
    "model.n_layers=2",
    "model.mtp_depth=0",
    "model.d_ff_dense=96",
    "model.d_ff_expert=32",
    "optim.lr=0.003",
    "trainer.threads=1",
    "callbacks.evaluation.every_steps=4",
    "callbacks.evaluation.problems=50",
    "stage.max_steps=16",
    "rollout.prompts_per_rollout=16",
    "rollout.group_size=8",
    "rollout.minibatches_per_rollout=2",
    "stage.evaluation.problems=50",
    "stage.evaluation.samples=4",
    'stage.parent_overrides=["stage.max_steps=200","data.rows_per_batch=12"]',
    "+callbacks.lengths={_target_: reports.preemption.recipe.Lengths}",
]


class Lengths(L.Callback):
    """Writes the lengths of each rollout's completions, in tokens, to a file of its own in the artefact's folder.

    Raises `RuntimeError` if a rollout that was there already comes out otherwise.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / LENGTHS
        self.number = -1

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        dataset = getattr(trainer, "datamodule", None)
        rollout = getattr(getattr(dataset, "dataset", None), "rollout", None)
        if rollout is None or rollout.number == self.number:
            return
        self.number = rollout.number
        path = self.folder / f"rollout-{rollout.number:05d}.json"
        text = json.dumps(rollout.generation.completion_mask.sum(1).tolist())
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise RuntimeError(f"{path}: this rollout has other lengths now")
        self.folder.mkdir(exist_ok=True)
        write_text(path, text)


def overrides(seed: int, run: str) -> list[str]:
    """The arguments of `scripts/train.py`; the same for both runs."""
    return [*SMALL, f"seed={seed}"]


def signalled(words: Sequence[str], moments: Sequence[tuple[str, float]]) -> list[float]:
    """Run `r1 train` with `words` once per moment, signalling it then; returns the seconds each took to end.

    A moment is the beginning of a line to wait for ("": none), and the seconds from there to the signal. A start that ends before
    its signal ends the row. Raises `CalledProcessError` for an exit code that asks for no other attempt.
    """
    command = [sys.executable, "-c", PROGRAM, "train", *words]
    took_s: list[float] = []
    for line, pause_s in moments:
        at_work = threading.Event()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            reader = threading.Thread(target=_read, args=(process, line, at_work))
            reader.start()
            if line:
                at_work.wait()
            try:
                code = process.wait(timeout=pause_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGUSR1)
                struck_s = time.monotonic()
                code = process.wait()
                took_s.append(time.monotonic() - struck_s)
            reader.join()
        if code == 0:
            break
        if code not in AGAIN:
            raise subprocess.CalledProcessError(code, command)
    return took_s


def _read(process: subprocess.Popen[str], wanted: str, at_work: threading.Event) -> None:
    """Pass the process's lines on; the first that begins with `wanted`, or the end, sets `at_work`."""
    for line in process.stdout or ():
        sys.stdout.write(line)
        sys.stdout.flush()
        if line.startswith(wanted):
            at_work.set()
    at_work.set()


def lengths_of(artefact: Artefact) -> list[list[int]]:
    """The lengths of the completions of each rollout, in tokens."""
    paths = sorted((artefact.folder / LENGTHS).glob("rollout-*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def finished_at_a_cut(rollout: Sequence[int]) -> float:
    """The mean length of the completions that a cut at a random token leaves finished: what keeping them would train on."""
    cuts = range(min(rollout), max(rollout) + 1)
    return mean(mean(length for length in rollout if length <= cut) for cut in cuts)


def make(seed: int, run: str, root: Path) -> Made:
    """The rows of one run."""
    words, took_s = overrides(seed, run), [0.0]
    own = root / run
    if run == PREEMPTED:
        rng = random.Random(seed)
        moments = [(line, rng.uniform(*(WORKING_S if line else STARTING_S))) for line in MOMENTS]
        took_s = signalled([*words, f"paths.root={own}"], moments)
    artefact, _ = train(words, own)
    rollouts = lengths_of(artefact)
    if not rollouts:
        raise InvalidInput(f"{artefact.folder}: there are no lengths; start the report in the checkout")
    base = next(own.glob("pretrain-*"))
    measures = {
        "signals": len(took_s) if run == PREEMPTED else 0,
        "seconds from signal to end, longest": f"{max(took_s):.2f}",
        "seconds from signal to end, mean": f"{mean(took_s):.2f}",
        "rollouts": len(rollouts),
        "completions": sum(map(len, rollouts)),
        "tokens per completion, mean": f"{mean(itertools.chain(*rollouts)):.4f}",
        "the same, of completions finished at a random cut": f"{mean(map(finished_at_a_cut, rollouts)):.4f}",
        "lengths in order, SHA-256": hashlib.sha256(json.dumps(rollouts).encode()).hexdigest()[:16],
        "weights of the base, SHA-256": _digest(base / WEIGHTS),
        "final weights, SHA-256": _digest(artefact.folder / WEIGHTS),
    }
    common = {"seed": seed, "run": run}
    rows = [{**common, "measure": name, "value": value, **made_by(artefact)} for name, value in measures.items()]
    counts = sorted(Counter(itertools.chain(*rollouts)).items())
    return Made(rows, [{**common, "tokens": tokens, "completions": count} for tokens, count in counts])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def render(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table: a line per seed and measure, a column per run, and whether what must be equal is."""
    values = {(row["seed"], row["measure"], row["run"]): row["value"] for row in rows}
    lines = [f"| seed | | {UNDISTURBED} | {PREEMPTED} | |", "|---|---|---|---|---|"]
    for seed, measure in dict.fromkeys((row["seed"], row["measure"]) for row in rows):
        pair = [values.get((seed, measure, run), "not run") for run in (UNDISTURBED, PREEMPTED)]
        told = "" if measure.startswith(("signals", "seconds")) else "equal" if len(set(pair)) == 1 else "DIFFERENT"
        lines.append(f"| {seed} | {measure} | {pair[0]} | {pair[1]} | {told} |")
    return "\n".join(lines) + "\n"


RECIPE = Recipe(
    seeds=[0],
    key={"seed": int, "run": str},
    fields=FIELDS,
    curve_fields=CURVE_FIELDS,
    runs=lambda options: itertools.product(options.seeds, (UNDISTURBED, PREEMPTED)),
    overrides=overrides,
    make=make,
    table=render,
)
