"""What a reader of the documents has by the time they type a line: files of rows, a checkpoint, artefacts of earlier stages.

For planning, an artefact is a folder with configuration, tokenizer and a few weights, made in no time; `trained` makes real ones.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from omegaconf import OmegaConf
from torch import nn

from r1_lightning.artefacts import data_set, store
from r1_lightning.artefacts.store import CONFIG, TOKENIZER
from r1_lightning.artefacts.weights import save_weights
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from tests.support.commands import SMALL_MODEL, folder, overrides, train
from tests.support.hf_folders import dense_folder, write_tokenizer

LONGEST = 32_768  # as long as the rows of the paper's students
SUMS = [
    {"question": f"What is {n}+1?", "completion": f"<think>{n}+1={n + 1}</think><answer>{n + 1}</answer>"}
    for n in range(400)
]
PAIRS = [{"prompt": f"Say {n}.", "chosen": f"It is {n}.", "rejected": "No."} for n in range(400)]
LABELS = [{"prompt": f"Say {n}.", "response": f"It is {n}.", "label": n % 2} for n in range(400)]
GSM8K = [
    {"question": f"Ann has {n} pens and buys 1. How many?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"} for n in range(20)
]
MATH = [
    {
        "problem": f"What is ${n}+1$?",
        "solution": f"It is $\\boxed{{{n + 1}}}$.",
        "answer": str(n + 1),
        "level": 1,
        "subject": "Sums",
    }
    for n in range(20)
]
MBPP = [
    {
        "task_id": n,
        "text": f"Write a function that adds {n}.",
        "code": f"def f(x): return x+{n}",
        "test_list": [f"assert f(1)=={n + 1}"] * 3,
    }
    for n in range(10)
]
FILES = {
    "sums.jsonl": SUMS,
    "rows.jsonl": [{"question": row["question"], "answer": str(n + 1)} for n, row in enumerate(SUMS)],
    "preferences/helpful.jsonl": PAIRS,
    "preferences/safety.jsonl": LABELS,
    "gsm8k/train.jsonl": GSM8K[:12],
    "gsm8k/test.jsonl": GSM8K[12:],
    "math/train.jsonl": MATH[:10],
    "math500/test.jsonl": MATH[10:],
    "mbpp/train.jsonl": MBPP[:5],
    "mbpp/test.jsonl": MBPP[5:],
}


def write_files(data: Path) -> None:
    """Files in the documented formats, at their places below `paths.data`."""
    for name, rows in FILES.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def planned(root: Path) -> dict[str, str]:
    """Places for everything that a line may name, where nothing has been trained."""
    write_files(root / "data")
    with composing():
        model = stand_in(root, "stage=grpo")
        scorer = stand_in(root, "stage=reward_model")
        rows = stand_in(root, "stage=sample", rows=True)
    return _places(root, model, scorer, rows, dense_folder(root / "qwen", "qwen2", max_position_embeddings=LONGEST))


def stand_in(root: Path, stage: str, rows: bool = False) -> Path:
    """A complete artefact of `stage` in which hardly anything is."""
    made = compose_stage([stage, *SMALL_MODEL, f"paths.root={root / 'runs'}"])
    digest = hashlib.sha256(stage.encode()).hexdigest()
    artefact = store.create(root / "runs", made.stage, "tiny", "arithmetic", digest)
    store.write_text(artefact.folder / CONFIG, OmegaConf.to_yaml(resolved(made.config)))
    if rows:
        data_set.write_lines(data_set.part_path(artefact.folder, 0), SUMS)
        store.write_text(artefact.folder / data_set.CARD, "rows\n")
        store.write_json(artefact.folder / data_set.COUNTS, {"rows": len(SUMS)})
    else:
        write_tokenizer(artefact.folder / TOKENIZER)
        save_weights(nn.Linear(2, 2), artefact.weights_path)
    return store.complete(artefact, "c0ffee", {}, {}, {}).folder


def trained(root: Path) -> dict[str, str]:
    """The same with a base and a model of RL that are really there."""
    write_files(root / "data")
    plain = [item for item in overrides(root / "runs", 2, 2, evaluation=False) if "hash" not in item]
    assert train([*plain, "model.max_positions=2048"]).code == 0
    model = folder(root / "runs", "grpo")
    with composing():
        rows = stand_in(root, "stage=sample", rows=True)
    return _places(root, model, model, rows, dense_folder(root / "qwen", "qwen2", max_position_embeddings=LONGEST))


def _places(root: Path, model: Path, scorer: Path, rows: Path, checkpoint: Path) -> dict[str, str]:
    data = root / "data"
    return {
        "stage=NAME": "pretrain",
        "experiment=NAME": "r1_zero_tiny",
        "task=NAME": "equations",
        "table=ID": "stages",
        "init_from=FOLDER": str(checkpoint),
        "paths.data=FOLDER": str(data),
        "paths.root=FOLDER": str(root / "other"),
        "+stage.inputs.score.folder=FOLDER": str(scorer),
        "+stage.inputs.teacher.folder=FOLDER": str(model),
        "+stage.inputs.data.folder=FOLDER": str(rows),
        "task.source.train.file=FILE": str(data / "rows.jsonl"),
        "data.preferences.file=FILE": str(data / "preferences" / "helpful.jsonl"),
        "FOLDER": str(checkpoint),
        "FILE": str(data / "sums.jsonl"),
        "ARTEFACT": str(model),
        "RUN": str(model),
        "OTHER_RUN": str(model),
        "DIR": "exported",
        "runs/grpo-...": str(model),
        "/path/to/new_folder": "exported",
        "/path/to/deepseek_folder": str(root / "deepseek"),
        "/path/to/qwen_or_llama": str(checkpoint),
        "optim.lr=...": "0.001",
        "+logger.mine={_target_: CLASS}": "{_target_: lightning.pytorch.loggers.CSVLogger, save_dir: logs}",
        "+callbacks.mine={_target_: CLASS}": "{_target_: lightning.pytorch.callbacks.LearningRateMonitor}",
    }
