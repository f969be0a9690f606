"""Fine-tuning from the command line, in R1's form: the graph, epochs, a resumed run, other data, and RL that goes on from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.run.commands import evaluate
from r1_lightning.stages.sft import SFTModule
from r1_lightning.text.chat_template import R1
from r1_lightning.types.errors import InvalidInput
from tests.run.stages.test_train import metrics_rows
from tests.support.commands import SMALL_MODEL, folder, train, weights
from tests.support.hf_folders import dense_folder

Captured = pytest.CaptureFixture[str]
BASE = 'stage.parent_overrides=["stage.max_steps=4","data.rows_per_batch=4","optim.warmup_steps=1"]'


def write(path: Path, count: int = 10) -> Path:
    rows = [
        {"question": f"What is {n}+2?", "completion": f"<think>{n}+2={n + 2}</think>It is \\boxed{{{n + 2}}}."}
        for n in range(count)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def alone(root: Path, *more: str, template: str = "r1") -> list[str]:
    """Ten examples twice in batches of four: five steps."""
    own = ["data.examples_per_batch=4", "data.micro_batches=2", "optim.lr=0.01", "data.row_tokens=128"]
    measured = "stage.evaluation={problems: 4, samples: 2, max_new_tokens: 12}"
    task = [f"task.template={template}"]
    return ["stage=sft", *SMALL_MODEL, *own, *task, measured, BASE, f"paths.root={root}", *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "x.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert train(alone(root, f"data.examples.file={data}")).code == 0
    return root


def test_the_graph_the_steps_and_the_table(finished: Path) -> None:
    record = json.loads((folder(finished, "sft") / "artefact.json").read_text())
    assert {role: source["stage"] for role, source in record["inputs"].items()} == {"base": "pretrain"}
    rows = metrics_rows(finished, "sft")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]  # 2 * 10 / 4
    # Of the ten numbers n + 2 the last two, 10 and 11, have two digits; each batch of four has its own number of tokens.
    assert all(float(row["train/completion_tokens"]) > 4 * 10 for row in rows)
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    title, head, *_ = (folder(finished, "sft") / "table.txt").read_text().splitlines()
    assert title.startswith("4 held-out problems of ArithmeticTask") and head.split() == ["base", "sft"]


def test_the_tokenizer_s_chat_template_is_r1_s(finished: Path) -> None:
    config = json.loads((folder(finished, "sft") / "tokenizer" / "tokenizer_config.json").read_text())
    assert config["chat_template"] == R1.jinja()


def test_it_is_found_again_and_other_data_are_another_artefact(
    finished: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished, root)
    again = train(alone(root, f"data.examples.file={data}"), capsys)
    assert again.code == 0 and "sft: reusing" in again.out
    before = data.read_text()
    try:
        write(data, 9)
        done = train(alone(root, f"data.examples.file={data}"), capsys)
    finally:
        data.write_text(before)
    assert done.code == 0 and len(list(root.glob("sft-*"))) == 2 and len(list(root.glob("pretrain-*"))) == 1


def test_a_resumed_run_ends_with_the_same_bits(
    finished: Path, data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder(finished, "pretrain"), tmp_path / folder(finished, "pretrain").name)
    arguments = alone(tmp_path, f"data.examples.file={data}")
    with monkeypatch.context() as patch:
        step, seen = SFTModule.training_step, []

        def failing(self: SFTModule, *given: Any) -> Any:
            seen.append(1)
            if len(seen) == 8:  # in the second half of the fourth step; a checkpoint is there from the second
                raise KeyboardInterrupt
            return step(self, *given)

        patch.setattr(SFTModule, "training_step", failing)
        assert train(arguments, capsys).code == 130
    done = train(arguments, capsys)
    assert done.code == 0 and "sft: resuming" in done.out
    assert weights(tmp_path, "sft") == weights(finished, "sft")
    assert [row["train/loss"] for row in metrics_rows(tmp_path, "sft")] == [
        row["train/loss"] for row in metrics_rows(finished, "sft")
    ]


def test_a_data_set_as_an_input(finished: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    """An artefact with shards beside its files: the same rows, and so the same weights, under another fingerprint."""
    root = tmp_path / "runs"
    shutil.copytree(folder(finished, "pretrain"), root / folder(finished, "pretrain").name)
    source = tmp_path / "source"
    shutil.copytree(folder(finished, "pretrain"), source)
    (source / "data").mkdir()
    lines = data.read_text().splitlines(keepends=True)
    for number, part in enumerate((lines[:3], lines[3:])):
        (source / "data" / f"part-{number:05}.jsonl").write_text("".join(part))
    done = train(alone(root, f"+stage.inputs.data.folder={source}"), capsys)
    assert done.code == 0, done.err
    assert weights(root, "sft") == weights(finished, "sft")
    record = json.loads((folder(root, "sft") / "artefact.json").read_text())
    assert set(record["inputs"]) == {"base", "data"}
    assert record["fingerprint"] != json.loads((folder(finished, "sft") / "artefact.json").read_text())["fingerprint"]


def test_rl_goes_on_from_it_in_its_form(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    rl = ["stage=grpo", "debug=fast", "task.template=r1", "reward=r1", f"init_from={folder(finished, 'sft')}"]
    done = train([*rl, "logger=none", "+callbacks.self_check.prompts=2", f"paths.root={tmp_path}"], capsys)
    assert done.code == 0, done.err
    row = metrics_rows(tmp_path, "grpo")[0]
    assert "format/tag_in_summary" in row and "format/missing_answer" not in row


def test_evaluation_speaks_of_one_form(finished: Path) -> None:
    artefact = folder(finished, "sft")
    changes = {"problems": 2, "samples": 1, "max_new_tokens": 4}
    made, prefixes = evaluate.Evaluator, []

    def spy(*given: Any) -> Any:
        evaluator = made(*given)
        prefixes.append(evaluator.forced_prefix)
        return evaluator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "Evaluator", spy)
        evaluate.evaluate(artefact, changes, evaluate.EMPTY_THINK)
        evaluate.evaluate(artefact, changes, reward="r1")
    assert prefixes == [" <think></think>", ""]
    with pytest.raises(
        InvalidInput, match=r"reward\.rewards\.accuracy\.form='r1_zero' is not allowed: task\.template=r1"
    ):
        evaluate.evaluate(artefact, changes, reward="math")


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_dense_student(kind: str, data: Path, tmp_path: Path, capsys: Captured) -> None:
    source = dense_folder(tmp_path / "student", kind)
    small = ["data.row_tokens=128", "data.examples_per_batch=4", "data.micro_batches=2", "data.epochs=1"]
    student = ["experiment=distill_qwen_7b", f"init_from={source}", f"data.examples.file={data}", *small]
    done = train([*student, "logger=none", f"paths.root={tmp_path / 'runs'}"], capsys)
    assert done.code == 0, done.err
    rows = metrics_rows(tmp_path / "runs", "sft")
    assert len(rows) == 3 and float(rows[0]["train/mtp_loss"]) == 0.0  # 10 / 4; dense models have no MTP module
