"""DPO from the command line: its tables, a run that goes on with the same bits, and the policy that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.artefacts.store import open_artefact
from r1_lightning.artefacts.weights import stored_shapes
from r1_lightning.stages.dpo import DPOModule
from tests.run.stages.test_train import Fault, metrics_rows
from tests.support.commands import SMALL_MODEL, folder, overrides, train, weights

Captured = pytest.CaptureFixture[str]
EVALUATION = "stage.evaluation={problems: 4, samples: 2, max_new_tokens: 8, pairs: 6, pairs_per_batch: 4}"
pytestmark = pytest.mark.slow


def words(root: Path, *more: str) -> list[str]:
    own = ("stage.max_steps=5", "data.items_per_batch=4", "optim.lr=0.01", "optim.warmup_steps=1", EVALUATION)
    base = 'stage.parent_overrides=["stage.max_steps=5","data.rows_per_batch=4","optim.warmup_steps=1"]'
    return ["stage=dpo", *SMALL_MODEL, *own, base, f"paths.root={root}", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert train(words(root)).code == 0
    return root


def test_the_tables_and_the_rows(finished: Path) -> None:
    made = folder(finished, "dpo")
    text = (made / "table.txt").read_text()
    title, head, *_ = text.splitlines()
    assert title.startswith("4 held-out problems of ArithmeticTask, 2 samples each") and head.split() == ["base", "dpo"]
    assert "\n\n6 held-out preferences, 95 % intervals\n" in text
    metrics = open_artefact(made).metrics
    assert {"eval/arithmetic/pass_at_1", "eval_base/arithmetic/pass_at_1", "eval/preferences/margin"} <= metrics.keys()
    won = metrics["eval/preferences/pair_accuracy"] * 6
    assert won == pytest.approx(round(won)) and round(won) in range(7)  # of pairs that do not tie
    rows = metrics_rows(finished, "dpo")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert float(rows[0]["train/loss"]) == pytest.approx(0.6931472, abs=1e-6)  # ln 2: the policy is its reference
    assert float(rows[0]["dpo/margin"]) == 0.0 and float(rows[-1]["dpo/margin"]) != 0.0


def test_interrupted_and_resumed_the_bits_are_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    Fault(monkeypatch, DPOModule, 3, KeyboardInterrupt())
    assert train(words(tmp_path), capsys).code == 130
    assert train(words(tmp_path), capsys).code == 0
    assert weights(tmp_path, "dpo") == weights(finished, "dpo")
    assert metrics_rows(tmp_path, "dpo") == metrics_rows(finished, "dpo")
    tables = [(folder(root, "dpo") / "table.txt").read_text() for root in (tmp_path, finished)]
    assert tables[0] == tables[1]


def test_what_it_leaves_is_a_policy_that_rl_begins_with(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    made = folder(finished, "dpo")
    assert stored_shapes(made / "weights.safetensors") == stored_shapes(
        folder(finished, "pretrain") / "weights.safetensors"
    )
    assert train([f"init_from={made}", *overrides(tmp_path, grpo_steps=2, evaluation=False)], capsys).code == 0
    record = json.loads((folder(tmp_path, "grpo") / "artefact.json").read_text())
    assert record["inputs"]["base"]["stage"] == "dpo"


def test_pairs_over_steps_begin_at_chance_and_the_dry_run_knows_the_reference(
    finished: Path, tmp_path: Path, capsys: Captured
) -> None:
    init = f"init_from={folder(finished, 'pretrain')}"
    on = ("callbacks.evaluation.every_steps=2", "callbacks.evaluation.problems=3", "callbacks.evaluation.samples=1")
    planned = train(words(tmp_path, init, "dry_run=true"), capsys)
    assert planned.code == 0 and "reference" in planned.out and "logits" in planned.out
    assert train(words(tmp_path, init, *on), capsys).code == 0
    assert weights(tmp_path, "dpo") == weights(finished, "dpo")  # measuring changes nothing
    measured = [row["val/preferences/margin"] for row in metrics_rows(tmp_path, "dpo")]
    assert [bool(value) for value in measured] == [False, True, False, True, True]


def test_data_and_losses_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, capsys: Captured) -> None:
    refused = train(words(tmp_path, "objective=helpful"), capsys)
    assert refused.error.startswith(
        "stage.objective='BradleyTerry' is not allowed: it must be a loss of policies on pairs"
    )
    refused = train(["stage=dpo", "data=text", f"paths.root={tmp_path}"], capsys)
    assert refused.error.startswith("data.part='completion' is not allowed: PretrainDataModule takes")
