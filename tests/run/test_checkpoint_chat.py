"""A checkpoint asked in its own chat template: fine-tuning, then RL, evaluation and export agree on prompt and ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.model.precision import PlainPrecision
from r1_lightning.run.build.stored import open_folder, open_model
from r1_lightning.run.commands import evaluate
from r1_lightning.run.commands.export import ExportConfig, export
from r1_lightning.text.chat_template import BOX_INSTRUCTION, PLAIN
from r1_lightning.text.tokenizer import TextTokenizer
from tests.run.stages.test_train import metrics_rows
from tests.run.test_sft import write
from tests.support.chat_templates import CHATML, chat_folder
from tests.support.commands import folder, train
from tests.support.hf_folders import dense_folder

Captured = pytest.CaptureFixture[str]
CHAT = ["task.template=checkpoint", "+task.instruction=boxed", "logger=none"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 with a byte-level tokenizer whose end of sequence is not the end of a turn, as Qwen's base models have it."""
    made = dense_folder(tmp_path_factory.mktemp("chat") / "qwen", "qwen2", vocab_size=700, eos_token_id=2)
    (made / "generation_config.json").unlink(missing_ok=True)
    return chat_folder(made, CHATML, pad_token="</s>")


@pytest.fixture(scope="module")
def tuned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    data = write(root / "x.jsonl")
    small = ["data.row_tokens=256", "data.examples_per_batch=4", "data.micro_batches=2", "debug=fast"]
    found = train(
        ["stage=sft", f"init_from={checkpoint}", *CHAT, f"data.examples.file={data}", *small, f"paths.root={root}"]
    )
    assert found.code == 0, found.err
    return folder(root, "sft")


def ends_of(tokenizer: TextTokenizer) -> list[int | None]:
    return [tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<|im_end|>")]


def test_the_artefact_keeps_template_instruction_and_ends(tuned: Path, checkpoint: Path) -> None:
    model = open_model(open_folder(tuned), PlainPrecision())
    template = model.template(PLAIN)
    assert template.render("2+3?") == (
        "<|im_start|>system\nYou are helpful<|im_end|>\n"
        f"<|im_start|>user\n2+3?{BOX_INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(model.tokenizer.eos_ids) == ends_of(model.tokenizer)
    assert len(metrics_rows(tuned.parent, "sft")) == 2


def test_rl_goes_on_in_it_and_stops_at_both_ends(tuned: Path, tmp_path: Path, capsys: Captured) -> None:
    rl = ["stage=grpo", "debug=fast", "reward=r1", f"init_from={tuned}", "rollout.row_tokens=256"]
    done = train([*rl, *CHAT, f"paths.root={tmp_path}"], capsys)
    assert done.code == 0, done.err
    assert "format/tag_in_summary" in metrics_rows(tmp_path, "grpo")[0]
    made = open_model(open_folder(folder(tmp_path, "grpo")), PlainPrecision())
    assert list(made.tokenizer.eos_ids) == ends_of(made.tokenizer)


def test_an_export_says_the_same_to_transformers(tuned: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    out = export(ExportConfig(str(tuned), str(tmp_path / "out")))
    model = open_model(open_folder(tuned), PlainPrecision())
    theirs = AutoTokenizer.from_pretrained(out)
    asked = [{"role": "user", "content": f"2+3?{BOX_INSTRUCTION}"}]
    wanted = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert model.tokenizer.encode_prompts(model.template(PLAIN), ["2+3?"]) == [wanted]
    assert GenerationConfig.from_pretrained(out).eos_token_id == ends_of(model.tokenizer)
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == ends_of(model.tokenizer)
    again = open_model(open_folder(out), PlainPrecision())
    assert again.tokenizer.eos_ids == model.tokenizer.eos_ids


def test_an_evaluation_asks_in_it(tuned: Path, checkpoint: Path) -> None:
    changes = {"problems": 2, "samples": 1, "max_new_tokens": 4}
    made, seen = evaluate.Evaluator, []

    def spy(*given: Any) -> Any:
        seen.append(made(*given))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "Evaluator", spy)
        evaluate.evaluate(tuned, changes)
        evaluate.evaluate(checkpoint, changes, task=["task=arithmetic", *CHAT[:2]])
    (trained, published) = [evaluator.prompts() for evaluator in seen]
    assert trained == published and seen[0].tokenizer.eos_ids == seen[1].tokenizer.eos_ids


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["task.template=checkpoint_opened", "reward=r1_opened"], "does not open the think block: task.template=checkpoint"),
        (["task.template=checkpoint", "reward=r1_opened"], "task.template=checkpoint asks for completions of the form r1"),
        (["task.template=checkpoint", "+task.instruction=box", "reward=r1"], "task.instruction"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    given: Sequence[str], why: str, checkpoint: Path, tmp_path: Path, capsys: Captured
) -> None:
    done = train(["stage=grpo", "debug=fast", f"init_from={checkpoint}", *given, f"paths.root={tmp_path}"], capsys)
    assert done.code == 2 and why in done.err and len(done.err.strip().splitlines()) == 1


def test_without_a_checkpoint_it_is_one_line(tmp_path: Path, capsys: Captured) -> None:
    done = train(["stage=pretrain", "task.template=checkpoint", "debug=fast", f"paths.root={tmp_path}"], capsys)
    assert done.code == 2 and "there is no checkpoint; init_from=FOLDER names one" in done.err
