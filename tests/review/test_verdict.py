"""One sentence for each state, its step, and what stands beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from r1_lightning.review import expected
from r1_lightning.review.bands import Band, Bounds
from r1_lightning.review.rl_rules import ZERO_VARIANCE
from r1_lightning.review.run_files import settings_of
from r1_lightning.review.verdict import line_of, review
from r1_lightning.types.errors import InvalidInput
from tests.review.rule_cases import RL
from tests.support.run_folders import CONFIG, write_run

REWARD = "rollout/reward_mean"


@pytest.fixture
def band(monkeypatch: pytest.MonkeyPatch) -> Band:
    """The only shipped band: the reward of `CONFIG`'s experiment between 0.5 and 1.9 in 40 steps."""
    bounds = Bounds(tuple(range(40)), (0.5,) * 40, (1.9,) * 40)
    made = Band("mine", (0, 1, 2), {REWARD: bounds}, 1, settings_of(CONFIG))
    monkeypatch.setattr(expected, "shipped", lambda: (made,))
    return made


def run(folder: Path, changes: Mapping[str, Sequence[float]] | None = None, **more: object) -> Path:
    return write_run(folder, {**RL, **(changes or {})}, **{"final": {}, **more})  # type: ignore[arg-type]


def test_as_expected(tmp_path: Path, band: Band) -> None:
    found = review(run(tmp_path))
    assert found.verdict.sentence == "as expected: 1 curve up to step 39 in the band of mine (3 seeds)"
    assert (found.verdict.state, found.verdict.from_step) == ("as expected", None)
    assert found.band is band and found.unlike == [] and found.advisories == [] and len(found.series) == len(RL)


def test_differs_from_a_step_on(tmp_path: Path, band: Band) -> None:
    found = review(run(tmp_path, {REWARD: [0.9] * 20 + [0.49, 0.48] * 10}))
    assert (
        found.verdict.sentence
        == "differs here, from step 20: rollout/reward_mean 0.49 is below 0.5 to 1.9 (mine, 3 seeds)"
    )
    assert (found.verdict.state, found.verdict.from_step) == ("differs", 20)
    above = review(run(tmp_path / "above", {REWARD: [1.99, 1.98] * 20}))
    assert "rollout/reward_mean 1.99 is above 0.5 to 1.9" in above.verdict.sentence


def test_a_curve_that_is_not_logged_differs(tmp_path: Path, band: Band) -> None:
    rest = {name: values for name, values in RL.items() if name != REWARD}
    found = review(write_run(tmp_path, {**rest, "x": [0.0] * 40}, final={}))
    assert (
        found.verdict.sentence
        == "differs here, from step 0: rollout/reward_mean is not logged, or no number (mine, 3 seeds)"
    )


def test_failed(tmp_path: Path, band: Band) -> None:
    found = review(run(tmp_path, {REWARD: [0.0] * 40, "rollout/mixed_language_fraction": [0.9] * 40}))
    assert found.verdict.sentence == (
        "failed because of reward flat from step 0: the reward is the same at each of the last 10 steps, or its mean is below "
        "1% of the highest possible; language mixing from step 0"
    )
    assert (found.verdict.state, found.verdict.from_step) == ("failed", 0)


def test_healthy_without_a_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "shipped", lambda: ())
    found = review(run(tmp_path))
    assert found.verdict.sentence == "healthy: no rule is broken (there is no band for these settings)"
    assert found.verdict.state == "healthy" and found.band is None
    found = review(run(tmp_path / "b", {"rollout/mixed_language_fraction": [0.9] * 40}))
    assert found.verdict.sentence == "there is no band for these settings; 1 rule broken; language mixing from step 0"
    assert (found.verdict.state, found.verdict.from_step) == ("no band", 0)


@pytest.mark.parametrize(("folder", "state"), [(None, "failed"), ("hub:owner/name", "healthy")])
def test_pretraining_of_a_published_checkpoint_may_keep_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None, state: str
) -> None:
    monkeypatch.setattr(expected, "shipped", lambda: ())
    stage = {"_target_": "r1_lightning.stages.pretrain.PretrainModule"}
    config = {**CONFIG, "stage": stage, "init_from": folder}
    assert review(write_run(tmp_path, {"train/loss": [2.0] * 40}, config, final={})).verdict.state == state


def test_settings_that_differ_are_told(tmp_path: Path, band: Band) -> None:
    found = review(run(tmp_path, config={**CONFIG, "optim": {"lr": 0.01}}))
    assert found.verdict.sentence.endswith("(3 seeds); other settings than the band's: optim.lr=0.01 (0.0001)")
    assert found.unlike == ["optim.lr=0.01 (0.0001)"]


def test_a_curve_in_its_band_is_no_complaint_only_for_the_band_s_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = Bounds(tuple(range(40)), (0.4,) * 40, (1.0,) * 40)
    made = Band("mine", (0, 1, 2), {"rollout/mixed_language_fraction": bounds}, 1, settings_of(CONFIG))
    monkeypatch.setattr(expected, "shipped", lambda: (made,))
    changes = {"rollout/mixed_language_fraction": [0.9] * 40}
    assert review(run(tmp_path, changes)).advisories == []
    other = review(run(tmp_path / "other", changes, config={**CONFIG, "optim": {"lr": 0.01}}))
    assert [one.name for one in other.advisories] == ["language mixing"]


def test_a_band_that_is_too_wide_to_tell_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a share between 0 and 1 every run is "as expected": it is not counted, and hides no advisory."""
    mixed = "rollout/mixed_language_fraction"
    wide, steps = Bounds(tuple(range(40)), (0.0,) * 40, (1.0,) * 40), tuple(range(40))
    both = {mixed: wide, REWARD: Bounds(steps, (0.5,) * 40, (1.9,) * 40)}
    settings = {name: text for name, text in settings_of(CONFIG).items() if not name.startswith("reward.")}
    config = {**CONFIG, "reward": {}}
    monkeypatch.setattr(expected, "shipped", lambda: (Band("mine", (0, 1, 2), both, 1, settings),))
    found = review(run(tmp_path, {mixed: [0.9] * 40}, config=config))
    told = "1 curve up to step 39 in the band of mine (3 seeds); the band is too wide to tell of " + mixed
    assert found.verdict.sentence == f"as expected: {told}; language mixing from step 0"
    assert found.wide == [mixed] and [one.name for one in found.advisories] == ["language mixing"]
    monkeypatch.setattr(expected, "shipped", lambda: (Band("mine", (0, 1, 2), {mixed: wide}, 1, settings),))
    alone = review(run(tmp_path / "alone", config=config))
    assert alone.verdict.sentence == "healthy: no rule is broken (no curve has a band that can tell)"
    monkeypatch.setattr(expected, "shipped", lambda: (Band("mine", (0, 1, 2), {mixed: wide}, 1, settings),))
    gone = review(write_run(tmp_path / "gone", {REWARD: RL[REWARD]}, config, {}))
    assert gone.verdict.state == "differs" and gone.wide == []  # not logged at all is no matter of width


def test_a_run_that_was_interrupted_says_so(tmp_path: Path, band: Band) -> None:
    folder = run(tmp_path, final=None)
    assert review(folder).verdict.sentence.startswith("interrupted after 40 of 30 steps; as expected: ")
    assert review(folder, at_work=True).verdict.sentence.startswith("as expected: ")
    (folder / "tensorboard" / "metrics.csv").unlink()
    assert review(folder).verdict.sentence == "interrupted before its first step; nothing is logged"


def test_a_run_that_a_stage_stopped_at_nan_says_so(tmp_path: Path, band: Band) -> None:
    """The last row holds what is no number and not whether the step was skipped: the stage gave up there, nobody stopped it."""
    steps = {"train/loss": ["1.0"] * 7 + ["nan"], "train/skipped_step": ["0.0"] * 7 + [""]}
    folder = write_run(tmp_path / "stopped", steps)  # type: ignore[arg-type]
    told = "stopped at step 7 of 30; failed because of not finite from step 7: train/loss is NaN"
    assert review(folder).verdict.sentence == told
    steps["train/skipped_step"][-1] = "1.0"  # skipped (stage.on_nonfinite=skip), and then a signal came
    skipped = write_run(tmp_path / "skipped", steps)  # type: ignore[arg-type]
    assert review(skipped).verdict.sentence.startswith("interrupted after 8 of 30 steps; ")


def test_a_run_that_stopped_because_nothing_could_be_learned_says_so(tmp_path: Path, band: Band) -> None:
    steps = {ZERO_VARIANCE: ["0.5"] * 7 + ["1.0"], "train/skipped_step": ["0.0"] * 7 + [""]}
    for mode, told in (("stop", "stopped at step 7 of 30; "), ("train", "interrupted after 8 of 30 steps; ")):
        config = {**CONFIG, "stage": {**CONFIG["stage"], "on_zero_variance": mode}}
        folder = write_run(tmp_path / mode, steps, config)  # type: ignore[arg-type]
        assert review(folder).verdict.sentence.startswith(told)


def test_nothing_to_judge_is_no_line(tmp_path: Path, band: Band) -> None:
    few = {name: values[:4] for name, values in RL.items()}
    folder = write_run(tmp_path, few, final={})
    assert review(folder).verdict.sentence == "too few logged steps to judge (4)"
    sparse = write_run(tmp_path / "sparse", {"val/loss": [2.0]}, final={})  # one point is nothing that a rule looks at
    assert review(sparse).verdict.sentence == "too few logged steps to judge (1)"
    assert line_of(folder) == ""
    assert line_of(run(tmp_path / "whole")).startswith("verdict: as expected")
    odd = write_run(tmp_path / "odd", {"train/loss": [math.nan] * 2}, final={})
    assert line_of(odd).startswith("verdict: failed because of not finite from step 0")


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="it must be the folder of a run"):
        review(tmp_path)


def test_a_long_run_is_reviewed_in_seconds(tmp_path: Path) -> None:
    """10,000 steps of 18 metrics: about 0.5 s of one core, so that a page or a checkpoint can afford it."""
    folder = write_run(tmp_path, {name: values * 250 for name, values in RL.items()}, final={})
    start = time.process_time()
    assert len(review(folder).series[REWARD]) == 10_000
    assert time.process_time() - start < 10
