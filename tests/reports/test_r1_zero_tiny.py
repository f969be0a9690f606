"""The report over seeds: a seed is run once, rows of another recipe are refused, its files and the FLOPs by hand, a small run."""

from __future__ import annotations

import csv
import dataclasses
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from r1_lightning.artefacts.store import Artefact
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import count_parameters, meta_backbone
from r1_lightning.run.commands.recipe import Made, append
from r1_lightning.run.commands.report_loop import write_report
from r1_lightning.run.commands.report_runs import planned_fingerprint
from tests.reports.recipes import recipe_module
from tests.support.commands import SMALL_MODEL

recipe = recipe_module("r1_zero_tiny")
RECIPE = recipe.RECIPE


def test_a_seed_that_is_there_is_not_run_again(tmp_path: Path) -> None:
    ran: list[int] = []

    def make(seed: int, root: Path) -> Made:
        ran.append(seed)
        own = {"seed": seed, "model": "trained", "fingerprint": planned_fingerprint(*recipe.overrides(seed))}
        points = [dict.fromkeys(recipe.CURVE_FIELDS, 0.5) | {"seed": seed, "step": 7}]
        return Made(
            [dict.fromkeys(recipe.FIELDS, 0) | own | {"commit": f"c{seed}"}], points, {"config.yaml": "config\n"}
        )

    report = dataclasses.replace(RECIPE, make=make, table=lambda rows: "table\n", draw=None)
    runs = list(RECIPE.runs(Namespace(seeds=[0, 1])))
    for _ in range(2):
        assert write_report(report, tmp_path, runs, tmp_path) == 0
    assert ran == [0, 1]
    assert (tmp_path / "table.md").read_text() == "table\n"
    assert (tmp_path / "config.yaml").read_text() == "config\n"
    assert (tmp_path / "commit.txt").read_text() == "c0\nc1\n"
    assert not (tmp_path / "expected.json").exists()  # two seeds make no band


def test_rows_of_another_configuration_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the base and the control have fingerprints of their own, and are not asked."""
    row = dict.fromkeys(recipe.FIELDS, 0) | {"seed": 3, "model": "trained", "fingerprint": "0123456789"}
    assert RECIPE.is_of_run(row) and not RECIPE.is_of_run({**row, "model": "control"})
    append(tmp_path / "results.csv", recipe.FIELDS, [row])
    assert write_report(RECIPE, tmp_path, [(4,)], tmp_path) == 2
    assert "seed 3 has fingerprint 0123456789 and would now have" in capsys.readouterr().err


SHAPE = {
    "d_model": 16, "n_layers": 3, "n_dense_layers": 1, "n_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8,
    "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "d_ff_dense": 24, "d_ff_expert": 8,
    "n_routed_experts": 4, "n_shared_experts": 1, "n_activated_experts": 2,
}  # fmt: skip


ACTIVATED = count_parameters(meta_backbone(ModelConfig(vocab_size=50, **SHAPE))).activated


def _stage(folder: Path, rows: list[dict[str, object]]) -> Path:
    (folder / "tensorboard").mkdir()
    config = {
        "model": SHAPE,
        "task": {"tokenizer": {"vocab_size": 50}},
        "rollout": {"prompts_per_rollout": 2, "group_size": 4, "minibatches_per_rollout": 2},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with (folder / "tensorboard" / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_flops_of_pretraining(tmp_path: Path) -> None:
    """6 FLOPs per weight and token: two steps of 100 tokens."""
    folder = _stage(tmp_path, [{"perf/step_tokens": 100.0}, {"perf/step_tokens": 100.0}])
    assert recipe.training_flops(folder) == 6 * ACTIVATED * 200


def test_flops_of_grpo_count_a_rollout_once(tmp_path: Path) -> None:
    """Two steps of 60 tokens cost 8 each; one rollout of 8 completions x 10 tokens, named in both rows, costs 2 once."""
    row = {"perf/step_tokens": 60.0, "rollout/reward_mean": 1.0, "rollout/completion_tokens_mean": 10.0}
    folder = _stage(tmp_path, [row, row])
    assert recipe.training_flops(folder) == ACTIVATED * (8 * 120 + 2 * 80)


def _results() -> list[dict[str, str]]:
    values = {"base": 0.2, "trained": 0.8, "trained, empty think": 0.1, "control": 0.3}
    names = ("pass_at_1", "pass_at_1_lenient", "cons_at_16", "format_rate", "mixed_language_rate")
    rows = [
        {"seed": seed, "model": model, "measure": name, "value": str(value + shift)}
        for seed, shift in (("0", 0.0), ("1", 0.1))
        for model, value in values.items()
        for name in (*names, "completion_tokens_mean")
    ]
    for seed in ("0", "1"):
        rows.append({"seed": seed, "model": "trained", "measure": "training_flops", "value": "2e12"})
        rows.append({"seed": seed, "model": "control", "measure": "control_flops", "value": "3e12"})
    return [*rows, {"seed": "1", "model": "trained", "measure": "command_s", "value": "500"}]


CURVES = [
    {
        "seed": seed,
        "step": step,
        "reward_mean": value,
        "accuracy_mean": value,
        "format_mean": "0",
        "completion_tokens_mean": "20",
    }
    for seed, value in (("0", "0.30"), ("1", "0.40"), ("2", "0.50"))
    for step in ("0", "1", "2")
]


def test_the_table_shows_means_ranges_and_gains() -> None:
    """Trained 0.8 and 0.9: mean 0.850; its gain over the base is 0.6 in both seeds; only seed 1 was timed."""
    table = recipe.render(_results())
    assert "0.850 [0.800, 0.900]" in table
    assert "| strict, trained - base | +0.600 | +0.600 |" in table
    assert "| the whole command, s | not timed | 500 |" in table


def test_the_band_is_that_of_the_seeds(tmp_path: Path) -> None:
    """0.3, 0.4 and 0.5: s = 0.1, so 0.4 -+ (3 * 0.1 * sqrt(4/3) + 0.05), which is 0.4 -+ 0.3964; lengths 20 -+ 0.05 * 20."""
    files = RECIPE.more_files([{"commit": "b"}, {"commit": "a"}], CURVES)
    assert files["commit.txt"] == "a\nb\n"
    band = json.loads(files["expected.json"])
    assert band["seeds"] == [0, 1, 2] and band["experiment"] == "r1_zero_tiny"
    assert band["series"]["rollout/reward_mean"] == {
        "steps": [0, 1, 2],
        "low": [0.00359] * 3,
        "high": [0.7964] * 3,
    }
    assert band["series"]["rollout/completion_tokens_mean"]["low"] == [19.0] * 3
    assert "expected.json" not in RECIPE.more_files([{"commit": "a"}], CURVES[:6])


def test_the_picture_is_written(tmp_path: Path) -> None:
    recipe.draw(CURVES, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_whole_seed_at_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base, RL, control and four evaluations, each artefact found by its fingerprint; RL of two steps learns nothing."""
    train = recipe.train

    def small(arguments: Sequence[str], root: Path) -> tuple[Artefact, float]:
        is_given = any(word.startswith("init_from=") for word in arguments)  # the model, and its tokenizer with it
        shape = [word for word in SMALL_MODEL if not (is_given and word.startswith(("model.", "task.")))]
        return train([*arguments, "debug=fast", *shape], root)

    monkeypatch.setattr(recipe, "train", small)
    monkeypatch.setattr(recipe, "PROBLEMS", 4)
    monkeypatch.setattr(recipe, "SAMPLES", 2)
    made = RECIPE.make(5, root=tmp_path)
    assert {RECIPE.run_of(row) for row in made.rows} == {(5,)}
    values = {(row["model"], row["measure"]): float(row["value"]) for row in made.rows}
    assert {model for model, measure in values if measure == "pass_at_1"} == set(recipe.MODELS)
    assert values["trained", "training_flops"] > 0 and values["control", "control_flops"] > 0
    assert values["trained", "command_s"] > 0  # from nothing, so it is timed
    assert len({row["fingerprint"] for row in made.rows}) == 3  # base, trained, control
    assert [point["step"] for point in made.points] == ["0", "1"]
    assert yaml.safe_load(made.files["config.yaml"])["seed"] == 5
