"""A judge from the command line: an input like any other, asked for pairs, resumed with the same bits, and what is refused."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from r1_lightning.artefacts import data_set
from r1_lightning.artefacts.store import open_artefact
from r1_lightning.rollout import judged_preferences, pair_judge
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.pair_judge import JudgingModel
from r1_lightning.run.build import judges
from r1_lightning.run.build.judges import judge_of, with_judge
from r1_lightning.run.stages import rejection_sampling as sampling
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.stages.reward_model import RewardModelModule
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Generation
from tests.model.tiny import backbone
from tests.rollout.test_judge_model import FakeJudge, Letters
from tests.run.build.test_reward_models import alone
from tests.run.conftest import REAL_CONFIGS, Command
from tests.run.stages.test_train import Fault, metrics_rows
from tests.support.commands import SMALL_MODEL, folder, train, weights
from tests.support.sampling import base_artefact, overrides, parts

Captured = pytest.CaptureFixture[str]
SMALL = ["model=tiny", *(item for item in SMALL_MODEL if item.startswith("model."))]
OF_THE_JUDGE = [*SMALL, "model.max_positions=2048", "stage.max_steps=2", "data.rows_per_batch=4"]
JUDGED = ["data=judged_preferences", "rollout=fast", "rollout.max_new_tokens=12", "data.judge_new_tokens=3"]


def with_a_judge(root: Path, *more: str) -> list[str]:
    quoted = ",".join(f'"{value}"' for value in (*OF_THE_JUDGE, "optim.warmup_steps=1"))
    return alone(root, *JUDGED, f"+stage.inputs.judge={{stage: pretrain, overrides: [{quoted}]}}", *more)


def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a judge writes no score and hardly ever ends: each reply counts as ended, and stands for scores of its text."""

    def scores(reply: str) -> tuple[float, float]:
        number = zlib.crc32(reply.encode())
        return 1.0 + number % 10, 1.0 + number // 10 % 10

    asked = judges._Asked.__call__

    def finished(self: judges._Asked, *arguments: Any) -> Generation:
        generation = asked(self, *arguments)
        return replace(generation, finished=torch.ones_like(generation.finished))

    monkeypatch.setattr(pair_judge, "read_scores", scores)
    monkeypatch.setattr(judges._Asked, "__call__", finished)
    monkeypatch.setattr(judged_preferences, "PROBLEMS_PER_CALL", 40)  # fewer prompts of a thousand tokens


@pytest.mark.slow
def test_pairs_are_judged_by_the_input_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    readable(monkeypatch)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    done = train(with_a_judge(whole), capsys)
    assert done.code == 0, done.err
    assert "judge: 20 pairs; left out: " in done.out
    record = json.loads((folder(whole, "reward_model") / "artefact.json").read_text())
    assert {role: source["stage"] for role, source in record["inputs"].items()} == {
        "base": "pretrain",
        "judge": "pretrain",
    }
    assert len(list(whole.glob("pretrain-*"))) == 2
    Fault(monkeypatch, RewardModelModule, 3, KeyboardInterrupt())
    assert train(with_a_judge(resumed), capsys).code == 130
    assert train(with_a_judge(resumed), capsys).code == 0
    assert weights(resumed, "reward_model") == weights(whole, "reward_model")
    assert metrics_rows(resumed, "reward_model") == metrics_rows(whole, "reward_model")


@pytest.mark.slow
def test_an_untrained_judge_is_one_line_that_counts_its_replies(tmp_path: Path, capsys: Captured) -> None:
    refused = train(with_a_judge(tmp_path), capsys)
    assert "6 held-out problems gave no judged pair; left out: " in refused.error
    assert (
        "left out: 5 (a reply of the judge cannot be read), 1 (no two samples that differ); 20 of 20 " in refused.error
    )
    (judge,) = (
        path for path in tmp_path.glob("pretrain-*") if "max_positions: 2048" in (path / "config.yaml").read_text()
    )
    artefact, base = open_artefact(judge), backbone()
    asked = judge_of(artefact, base.precision, RolloutConfig(), 0, torch.device("cpu"))
    assert (asked.max_tokens, asked.template.name) == (2048, "r1_zero")
    generation = asked.generate([asked.tokenizer.encode("1+1")], 1, torch.zeros(1, 3).long(), 3)
    assert generation.completion_ids.shape == (1, 3)
    assert with_judge({"backbone": base}, {"base": artefact}, OmegaConf.create({})) == {"backbone": base}
    sampled = ["stage=sample", *SMALL, f"init_from={judge}", "~reward", f"+stage.inputs.judge.folder={judge}"]
    numbers = ["stage.problems=2", "stage.samples=2", "rollout.max_new_tokens=12", "+stage.judge_new_tokens=3"]
    refused = train([*sampled, *numbers, "logger=none", f"paths.root={tmp_path}"], capsys)
    assert refused.error.startswith("stage.rules keep none of 4 samples (")


def test_without_a_judge_nothing_is_trained(tmp_path: Path, capsys: Captured) -> None:
    refused = train(alone(tmp_path, *JUDGED), capsys)
    assert refused.error == (
        "stage.inputs.judge=None is not allowed: data JudgedPreferenceDataModule needs it: {stage: NAME} or {folder: FOLDER}"
    )
    refused = train([item for item in with_a_judge(tmp_path) if not item.startswith("rollout")], capsys)
    assert "rollout=None is not allowed: data JudgedPreferenceDataModule needs it" in refused.error
    refused = train(with_a_judge(tmp_path, "data.judge_calls=3"), capsys)
    assert refused.error == ("data.judge_calls=3 is not allowed: it must be even: each order is shown as often")
    assert not list(tmp_path.iterdir())


def test_a_judge_that_nobody_asks_is_refused(tmp_path: Path, capsys: Captured) -> None:
    data = ["data=preference_samples", "rollout=default", "reward=r1_zero", "+stage.inputs.judge={stage: pretrain}"]
    refused = train(["stage=reward_model", *data, f"paths.root={tmp_path}"], capsys)
    assert "data=judged_preferences asks a judge, these data do not" in refused.error
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capsys: Captured) -> None:
    refused = train(alone(tmp_path, *JUDGED, "+stage.inputs.judge.folder=absent"), capsys)
    assert refused.error.startswith("stage.inputs.judge.folder: artefact='absent'")


# ------------------------------------------------------------------------------------------------------ rejection sampling


def even(prompt: str, vote: int) -> str:
    """Of a candidate with an even number of letters: it is right; nothing of those that can be divided by 3."""
    found = re.search(r"Candidate answer:\n(\[\w+\])\n(.*)\n\1", prompt, re.S)
    assert found
    length = len(found[2])
    return "hm" if length % 3 == 0 else f"Verdict: {'in' * (length % 2)}correct"


def test_where_no_rule_can_the_judge_keeps_and_drops_samples(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeJudge(even)
    model = JudgingModel(fake, Letters(), PLAIN, 10**6)  # type: ignore[arg-type]
    monkeypatch.setattr(sampling, "build_parts", lambda *given: {**parts(*given), "reward": None})
    monkeypatch.setattr(judges, "judge_of", lambda *given: model)
    base = base_artefact(tmp_path / "given")
    more = ["~reward", f"+stage.inputs.judge.folder={base}", "+stage.judge_votes=3"]
    done = command(*overrides(tmp_path / "runs", base, *more), recorder=run_stage, configs=REAL_CONFIGS)
    assert done.code == 0, done.err
    (made,) = (tmp_path / "runs").glob("sample-*")
    artefact = open_artefact(made)
    assert set(artefact.inputs) == {"base", "judge"}
    records = [record for path in sorted(made.glob("blocks/*")) for record in data_set.read_lines(path)]
    samples = [sample for record in records for sample in record["samples"]]
    kept = [len(sample["completion"].strip()) for sample in samples if sample["fate"] == "kept"]
    assert kept and all(length % 2 == 0 and length % 3 for length in kept)
    assert {"wrong", "not judged"} <= {sample["fate"] for sample in samples}
    finished = [sample for sample in samples if sample["fate"] != "unfinished"]
    assert len(fake.prompts) <= len(samples) and len(fake.keys) == 3 * len(fake.prompts)
    assert len(finished) <= len(fake.prompts)


def test_a_judge_beside_a_rule_is_refused(tmp_path: Path, capsys: Captured) -> None:
    both = ["stage=sample", "+stage.inputs.judge={stage: pretrain}", f"paths.root={tmp_path}"]
    refused = train(both, capsys)
    assert (
        "reward.rewards.accuracy says already what is right; a judge is for where no rule can: ~reward" in refused.error
    )
    assert "reward=None is not allowed" in train(["stage=sample", "~reward", f"paths.root={tmp_path}"], capsys).error
    refused = train([*both, "~reward", "+stage.judge_votes=0"], capsys)
    assert "stage.judge_votes=0 is not allowed" in refused.error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_reward_model_is_no_judge(tmp_path: Path, capsys: Captured) -> None:
    assert train(alone(tmp_path), capsys).code == 0
    scorer = open_artefact(folder(tmp_path, "reward_model"))
    with pytest.raises(InvalidInput, match="it holds a reward model, which writes nothing"):
        judge_of(scorer, backbone().precision, RolloutConfig(), 0)
