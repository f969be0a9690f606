"""Small runs of every stage that trains, started by `stage_kills`, and the comparison with what an undisturbed run leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from r1_lightning.artefacts import store
from r1_lightning.review.rollout_records import NEWEST, ROLLOUTS
from tests.support.commands import SMALL_MODEL, folder
from tests.support.stage_kills import Ended, Fault, Starter

STEPS = 12

SMALL = [override for override in SMALL_MODEL if "self_check" not in override]
SMALL += [f"stage.max_steps={STEPS}", "stage.evaluation=null", "trainer.threads=1", "optim.lr=0.01"]
SAMPLED = ["rollout.max_new_tokens=12"]
STAGES: dict[str, list[str]] = {
    "pretrain": ["data.rows_per_batch=4", "stage.bias_update_speed=0.01"],
    "sft": ["data.examples_per_batch=4", "data.examples.file={root}/rows.jsonl"],
    "grpo": [
        *SAMPLED,
        "rollout.prompts_per_rollout=2",
        "rollout.group_size=4",
        "rollout.minibatches_per_rollout=4",
        "rollout.micro_batches=2",
        "stage.reference_refresh_steps=4",
        "+reward.rewards.hash={{_target_: tests.support.miniature.HashReward, name: hash}}",
        "+reward.weights.hash=1.0",
    ],
    "distill": [
        "data=on_policy",
        "rollout=default",
        "objective=js",
        *SAMPLED,
        "data.items_per_batch=4",
        "data.on_policy_fraction=0.5",
        "+stage.inputs.teacher.folder={teacher}",
    ],
    "reward_model": ["data.items_per_batch=4"],
    "dpo": ["data.items_per_batch=4"],
}
SAMPLING = ("grpo", "distill")


class Runs:
    """Commands of every stage, from one base and one teacher, and what each leaves if nothing interrupts it.

    Of one process, or of two by `trainer` ("ddp", "fsdp").
    """

    def __init__(self, root: Path) -> None:
        self.root, self.start = root, Starter()
        self.undisturbed: dict[str, Path] = {}
        rows = [{"question": f"what is {n}+{n + 1}?", "completion": f"{2 * n + 1}"} for n in range(10, 50)]
        (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        self.base = self.once("pretrain")
        self.teacher = folder(self.finished("pretrain", root / "teacher", "stage.max_steps=20"), "pretrain")

    def once(self, stage: str, trainer: str = "") -> Path:
        """The artefact's folder of an undisturbed run of `stage`."""
        name = f"undisturbed-{stage}-{trainer}".rstrip("-")
        if name not in self.undisturbed:
            self.undisturbed[name] = folder(self.finished(stage, self.root / name, trainer=trainer), stage)
        return self.undisturbed[name]

    def finished(self, stage: str, root: Path, *more: str, trainer: str = "") -> Path:
        ended = self(stage, root, None, *more, trainer=trainer)
        assert ended.code == 0, ended.text[-3000:]
        return root

    def __call__(self, stage: str, root: Path, fault: str | Fault | None, *more: str, trainer: str = "") -> Ended:
        """Start the command of `stage` below `root`, and wait for its end."""
        root.mkdir(exist_ok=True)
        own = [text.format(root=self.root, teacher=getattr(self, "teacher", "")) for text in STAGES[stage]]
        base = [] if stage == "pretrain" else [f"init_from={self.base}"]
        two = [f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2"] if trainer else []
        return self.start(
            [f"stage={stage}", *SMALL, *own, *base, *two, f"paths.root={root}", *more], fault, root / "output.txt"
        )

    def check(self, stage: str, root: Path, trainer: str = "") -> None:
        """Finish the run below `root`: weights and rows are those of the undisturbed run, and nothing is left over."""
        check_same(folder(self.finished(stage, root, trainer=trainer), stage), self.once(stage, trainer))


def check_same(found: Path, expected: Path) -> None:
    """Two artefacts have the same weights, rows, records of sampled completions and files."""
    assert (found / store.WEIGHTS).read_bytes() == (expected / store.WEIGHTS).read_bytes()
    assert metrics_rows(found) == metrics_rows(expected) and len(metrics_rows(found)) == STEPS
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    for name in {ROLLOUTS, NEWEST} & {path.name for path in expected.iterdir()}:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def metrics_rows(artefact: Path) -> list[dict[str, str]]:
    """metrics.csv without what depends on the clock."""
    with (artefact / "tensorboard" / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]
