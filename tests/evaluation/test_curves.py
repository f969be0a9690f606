"""The report's arithmetic: FLOPs and tables by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import yaml

from r1_lightning.evaluation.curves import draw_curves, expected_band, spread, summarise, training_flops
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import count_parameters, meta_backbone

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
    assert training_flops(folder) == 6 * ACTIVATED * 200


def test_flops_of_grpo_count_a_rollout_once(tmp_path: Path) -> None:
    """Two steps of 60 tokens cost 8 each; one rollout of 8 completions x 10 tokens, named in both rows, costs 2 once."""
    row = {"perf/step_tokens": 60.0, "rollout/reward_mean": 1.0, "rollout/completion_tokens_mean": 10.0}
    folder = _stage(tmp_path, [row, row])
    assert training_flops(folder) == ACTIVATED * (8 * 120 + 2 * 80)


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
    {"seed": seed, "step": "0", "reward_mean": value, "accuracy_mean": value, "completion_tokens_mean": "20"}
    for seed, value in (("0", "0.30"), ("1", "0.40"))
]


def test_the_table_shows_means_ranges_and_gains() -> None:
    """Trained 0.8 and 0.9: mean 0.850; its gain over the base is 0.6 in both seeds; only seed 1 was timed."""
    table, expected = summarise(_results()), expected_band(CURVES)
    assert "0.850 [0.800, 0.900]" in table
    assert "| strict, trained - base | +0.600 | +0.600 |" in table
    assert "| the whole command, s | not timed | 500 |" in table
    assert expected["steps"] == [0] and expected["reward_mean"] == [[0.25, 0.45]]


def test_the_picture_is_written(tmp_path: Path) -> None:
    draw_curves(CURVES, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_by_hand() -> None:
    assert spread([0.1, 0.4], digits=2) == "0.25 [0.10, 0.40]"
    assert spread([-0.25, 0.75], digits=2, sign="+") == "+0.25 [-0.25, +0.75]"
    assert spread([], digits=2) == "not run"
    assert spread([1.5, 1.5]) == "1.500 [1.500, 1.500]" and spread([1.0, 3.0]) == "2.0 [1.0, 3.0]"  # shares, lengths
