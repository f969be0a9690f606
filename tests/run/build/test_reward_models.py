"""A reward model from the command line, and RL that asks it: the graph, the table, resumed runs, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from r1_lightning.artefacts.store import open_artefact
from r1_lightning.artefacts.weights import stored_shapes
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.reward_head import HEAD
from r1_lightning.run.build.reward_models import load_scorer
from r1_lightning.run.commands import evaluate_command
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.stages.reward_model import RewardModelModule
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, hf_twin, tiny
from tests.run.stages.test_train import Fault, metrics_rows
from tests.support.commands import SMALL_MODEL, folder, overrides, train, weights
from tests.support.hf_folders import VOCABULARY, dense_folder, write_tokenizer

Captured = pytest.CaptureFixture[str]
MODEL = "[stage.max_steps=5,data.items_per_batch=4,data.part=whole,optim.warmup_steps=1,stage.evaluation.items=6]"


def quoted(values: str) -> str:
    """A list of overrides as Hydra's grammar wants it: each in quotes."""
    return "[" + ",".join(f'"{value}"' for value in values.strip("[]").split(",")) + "]"


def rl(root: Path, *more: str) -> list[str]:
    """GRPO against a reward model's score, both as small as they get."""
    plain = [item for item in overrides(root, evaluation=False) if "hash" not in item]
    score = f"stage.inputs.score={{stage: reward_model, overrides: {quoted(MODEL)}}}"
    return [*plain, "reward=model_score", score, *more]


def alone(root: Path, *more: str) -> list[str]:
    """The reward model by itself."""
    base = 'stage.parent_overrides=["stage.max_steps=5","data.rows_per_batch=4","optim.warmup_steps=1"]'
    return ["stage=reward_model", *SMALL_MODEL, *MODEL.strip("[]").split(","), base, f"paths.root={root}", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert train(rl(root)).code == 0
    return root


def test_the_graph(finished: Path) -> None:
    """One base serves both; the artefact names its two inputs; the model is one with a head."""
    record = json.loads((folder(finished, "grpo") / "artefact.json").read_text())
    assert {role: source["stage"] for role, source in record["inputs"].items()} == {
        "base": "pretrain",
        "score": "reward_model",
    }
    model = open_artefact(folder(finished, "reward_model"))
    assert model.inputs["base"]["fingerprint"] == record["inputs"]["base"]["fingerprint"]
    assert HEAD in stored_shapes(model.weights_path)
    assert (
        record["metrics"]["rollout/reward_mean"] == record["metrics"]["rollout/score_mean"]
    )  # the others weigh nothing
    assert 0.0 < record["metrics"]["rollout/score_mean"] < 1.0


def test_the_table_and_the_rows(finished: Path) -> None:
    model = folder(finished, "reward_model")
    title, head, *lines = (model / "table.txt").read_text().split("\n\n")[0].splitlines()
    assert title == "6 held-out preferences, 95 % intervals" and head.split() == ["reward_model"]
    assert [line.split()[0] for line in lines][:2] == ["pair_accuracy", "margin"]
    rows = metrics_rows(finished, "reward_model")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert float(rows[0]["train/loss"]) == pytest.approx(0.6931472, abs=1e-6)  # ln 2: the head begins at 0


def test_alone_it_is_the_same_artefact(finished: Path, capsys: Captured) -> None:
    again = train(alone(finished), capsys)
    assert again.code == 0 and again.out.startswith(f"reward_model: reusing {folder(finished, 'reward_model')} ")


@pytest.mark.parametrize(("module", "step"), [(RewardModelModule, 3), (GRPOModule, 3)])
def test_interrupted_and_resumed_the_bits_are_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, module: type, step: int
) -> None:
    Fault(monkeypatch, module, step, KeyboardInterrupt())
    assert train(rl(tmp_path), capsys).code == 130
    assert train(rl(tmp_path), capsys).code == 0
    for stage in ("reward_model", "grpo"):
        assert weights(tmp_path, stage) == weights(finished, stage)
        assert metrics_rows(tmp_path, stage) == metrics_rows(finished, stage)
    assert (folder(tmp_path, "reward_model") / "table.txt").read_text() == (
        folder(finished, "reward_model") / "table.txt"
    ).read_text()


SAMPLED = [
    "data=preference_samples",
    "rollout=fast",
    "rollout.max_new_tokens=12",
    "reward=r1_zero",
    "+reward.rewards.hash={_target_: tests.support.miniature.HashReward, name: hash}",
    "+reward.weights.hash=1.0",
]


def test_its_own_samples_are_those_of_the_base_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert train(alone(tmp_path / "whole", *SAMPLED), capsys).code == 0
    Fault(monkeypatch, RewardModelModule, 3, KeyboardInterrupt())
    assert train(alone(tmp_path / "resumed", *SAMPLED), capsys).code == 130
    first = capsys.readouterr()
    assert train(alone(tmp_path / "resumed", *SAMPLED), capsys).code == 0, first
    assert weights(tmp_path / "resumed", "reward_model") == weights(tmp_path / "whole", "reward_model")
    tables = [(folder(tmp_path / name, "reward_model") / "table.txt").read_text() for name in ("whole", "resumed")]
    assert tables[0] == tables[1]


def test_a_finished_model_is_given_as_a_folder(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    """The same weights make the same RL, wherever they come from; other weights make another."""
    model = folder(finished, "reward_model")
    given = train(rl(finished, f"+stage.inputs.score.folder={model}"), capsys)
    assert given.code == 0, given.err
    assert given.out.startswith(f"grpo: reusing {folder(finished, 'grpo')} ")
    other = rl(finished, "dry_run=true")
    other = [item.replace('stage.max_steps=5","data.items', 'stage.max_steps=6","data.items') for item in other]
    planned = train(other, capsys)
    assert (
        "score: missing, would be built first (stage reward_model, 6 optimizer steps, time not measured)" in planned.out
    )
    assert "time: not measured, a probe has no reward model to ask (score)" in planned.out


def test_what_is_no_reward_model_is_refused(finished: Path, capsys: Captured) -> None:
    base = folder(finished, "pretrain")
    refused = train(rl(finished, f"+stage.inputs.score.folder={base}"), capsys)
    assert refused.error.startswith("stage.inputs.score=") and "it holds no reward model" in refused.error
    refused = train(rl(finished, "+stage.inputs.score.folder=absent"), capsys)
    assert refused.error.startswith("stage.inputs.score.folder: artefact='absent'")
    assert not [path for path in finished.glob("grpo-*") if path != folder(finished, "grpo")]


def test_a_model_of_another_part_is_refused(finished: Path, capsys: Captured) -> None:
    refused = train(rl(finished, "reward.rewards.score.part=summary"), capsys)
    assert "reward.rewards.score.part='summary' is not allowed: its model was trained on 'whole'" in refused.error
    assert refused.error.endswith("reward.rewards.score.part=whole")  # what to type, word for word


def test_a_reward_whose_model_is_no_input_is_refused(tmp_path: Path, capsys: Captured) -> None:
    refused = train(
        rl(tmp_path, "reward.rewards.score.name=helpful", "~reward.weights.score", "+reward.weights.helpful=1.0"),
        capsys,
    )
    assert refused.error == (
        "reward.rewards.score.name='helpful' is not allowed: it asks a model, and stage.inputs names base, score; "
        "add stage.inputs.helpful"
    )
    assert not list(tmp_path.iterdir())


def test_a_reward_model_writes_nothing_to_evaluate(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(folder(finished, "reward_model"))])
    assert evaluate_command.main() == 2
    assert "a reward model writes nothing to measure; see its table.txt" in capsys.readouterr().err


def test_the_scorer_is_the_trained_model(finished: Path) -> None:
    artefact = open_artefact(folder(finished, "reward_model"))
    scorer = load_scorer("score", artefact, "whole", PlainPrecision())
    first, second = scorer.score([("What is 1+1", " 2"), ("What is 1+1", " 3")])
    assert first != second and torch.isfinite(torch.tensor([first, second])).all()
    with pytest.raises(InvalidInput, match="trained on 'whole'"):
        load_scorer("score", artefact, "summary", PlainPrecision())


def test_preferences_from_a_file(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    """Its bytes count: another line makes another model. Single responses are trained on point-wise."""
    data = tmp_path / "preferences"
    data.mkdir()
    lines = [{"prompt": f"What is {n}+1", "response": f"{n + 1 + n % 2}", "label": n % 2 == 0} for n in range(40)]
    path = data / "safety.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    root = tmp_path / "runs"
    root.mkdir()
    base = folder(finished, "pretrain")
    shutil.copytree(base, root / base.name)
    arguments = alone(root, "objective=safety", "data=preference_file", f"data.preferences.file={path}")
    arguments += [f"paths.data={tmp_path}", "data.preferences.held_out_one_in=4"]
    first = train(arguments, capsys)
    assert first.code == 0, first.err
    assert "accuracy" in (folder(root, "reward_model") / "table.txt").read_text()
    path.write_text("\n".join(map(json.dumps, lines[1:])))
    assert train(arguments, capsys).code == 0
    assert len(list(root.glob("reward_model-*"))) == 2
    path.unlink()
    assert "safety.jsonl is not readable" in train(arguments, capsys).error


def test_a_kept_row_for_every_step(finished: Path) -> None:
    with (folder(finished, "grpo") / "tensorboard" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and all(row["rollout/accuracy_mean"] for row in rows)


def test_the_second_stage_of_rl(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    """Reasoning by rules all the time; general and safety problems with their models from step 2 of 4 on."""
    data = tmp_path / "preferences"
    data.mkdir()
    pairs = [{"prompt": f"Say {n}", "chosen": f"{n}", "rejected": f"{n + 1}"} for n in range(30)]
    singles = [{"prompt": f"Do {n}", "response": f"{n}", "label": n % 2 == 0} for n in range(30)]
    for name, rows in (("helpful", pairs), ("safety", singles)):
        (data / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    small = quoted("[stage.max_steps=2,data.items_per_batch=4,optim.warmup_steps=1,stage.evaluation=null]")[1:-1]
    joined = [
        f'stage.inputs.helpful.overrides=["data=preference_file",{small}]',
        f'stage.inputs.safety.overrides=["objective=safety","data=preference_file","data.preferences.file={data}/safety.jsonl",{small}]',
        "task.source.parts.general.from_step=2",
        "task.source.parts.safety.from_step=2",
        "task.source.parts.safety.weight=1.0",
        "reward.from_step={helpful: 2, safety: 2}",
        "rollout.minibatches_per_rollout=1",
        "rollout.prompts_per_rollout=6",
    ]
    plain = [item for item in overrides(tmp_path / "runs", 5, 4, evaluation=False) if "hash" not in item]
    done = train([*plain, "task=r1_stage_2", "reward=r1_stage_2", f"paths.data={tmp_path}", *joined], capsys)
    assert done.code == 0, done.err
    with (folder(tmp_path / "runs", "grpo") / "tensorboard" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    asked = [{name: row[f"rollout/{name}_mean"] for name in ("helpful", "safety")} for row in rows]
    assert [bool(row["helpful"]) for row in asked] == [False, False, True, True]
    assert all(float(row["safety"]) > 0 for row in asked[2:]), "safety problems are there, and judged as a whole"
    assert len(list((tmp_path / "runs").glob("reward_model-*"))) == 2
    assert len(list((tmp_path / "runs").glob("pretrain-*"))) == 1


@pytest.mark.parametrize("kind", ["qwen2", "deepseek_v3"])
def test_a_published_checkpoint_is_the_base_of_both(kind: str, tmp_path: Path, capsys: Captured) -> None:
    """`model=hf` and the DeepSeek family: the reward model begins with the folder as well, and has its shape."""
    source = tmp_path / "checkpoint"
    if kind == "qwen2":
        dense_folder(source, kind)
    else:
        write_tokenizer(source)
        hf_twin(backbone(tiny(vocab_size=VOCABULARY, max_positions=256))).save_pretrained(source)
    small = '["stage.max_steps=2","data.items_per_batch=4","data.row_tokens=160","data.part=whole"]'
    arguments = [
        "stage=grpo",
        "reward=model_score",
        "debug=fast",
        "rollout.row_tokens=160",
        "rollout.max_new_tokens=12",
    ]
    arguments += [f"stage.inputs.score={{stage: reward_model, overrides: {small}}}", f"init_from={source}"]
    arguments += ["+callbacks.self_check.prompts=2", "logger=none", f"paths.root={tmp_path / 'runs'}"]
    done = train([*arguments, *(["model=hf"] if kind == "qwen2" else [])], capsys)
    assert done.code == 0, done.err
    model = folder(tmp_path / "runs", "reward_model")
    assert HEAD in stored_shapes(model / "weights.safetensors")
    assert open_artefact(model).inputs["base"]["folder"].endswith("checkpoint")
    assert not list((tmp_path / "runs").glob("pretrain-*"))
