"""A whole run, pre-training and GRPO, as a person starts it: same seed same bits, resumed after anything, nothing lost."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts import store
from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.text.tokenizer import TextTokenizer
from tests.support.commands import folder, overrides, start, train, weights
from tests.support.kills import Killed, random_pauses

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run that nothing interrupted. Read only: tests that change files take a `copy_of` it."""
    root = tmp_path_factory.mktemp("finished")
    assert train(overrides(root)).code == 0
    return root


@pytest.fixture
def copy_of(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `root` but locks: its time of change and its bytes."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != store.LOCK)
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def metrics_rows(root: Path, stage: str = "grpo") -> list[dict[str, str]]:
    """metrics.csv without what depends on the clock."""
    with (folder(root, stage) / "tensorboard" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in rows]


def test_what_a_run_leaves_behind(finished: Path) -> None:
    grpo, base = folder(finished, "grpo"), folder(finished, "pretrain")
    for artefact in (grpo, base):
        assert {"artefact.json", "config.yaml", "weights.safetensors", "tokenizer", "tensorboard"} <= {
            path.name for path in artefact.iterdir()
        }
    assert TextTokenizer.load(grpo / "tokenizer").vocab_size <= 300
    record = json.loads((grpo / "artefact.json").read_text())
    assert record["stage"] == "grpo" and record["inputs"]["base"]["stage"] == "pretrain"
    assert record["environment"]["decoder"].startswith(("native", "by the model itself"))
    assert {"eval_base/arithmetic/pass_at_1", "eval/arithmetic/pass_at_1", "train/loss"} <= record["metrics"].keys()
    assert weights(finished) != weights(finished, "pretrain")


def test_the_table_lays_base_and_trained_side_by_side(finished: Path) -> None:
    table = (folder(finished, "grpo") / "table.txt").read_text().split("\n\n")[0]
    title, head, *rows = table.splitlines()
    assert "4 held-out problems of ArithmeticTask, 2 samples each" in title and "95 % intervals" in title
    assert head.split() == ["base", "grpo"]
    names = [row.split()[0] for row in rows]
    assert {"pass_at_1", "cons_at_2", "format_rate", "completion_tokens_mean"} <= set(names)
    assert all(row.count("[") == row.count("]") == 2 for row in rows)  # an interval for each


def test_every_step_is_logged_once(finished: Path) -> None:
    for stage in ("pretrain", "grpo"):
        rows = metrics_rows(finished, stage)
        assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
        assert all(float(row["train/grad_norm"]) > 0 for row in rows)
    kl = [float(row["policy/kl_ref"]) for row in metrics_rows(finished)]
    assert [value == 0 for value in kl] == [True, False, True, False, True]  # the reference is refreshed every 2 steps


def test_a_finished_run_is_not_made_again(finished: Path, capsys: Captured) -> None:
    before = snapshot(finished)
    again = train(overrides(finished), capsys)
    assert again.code == 0 and snapshot(finished) == before
    grpo = folder(finished, "grpo")
    assert again.out.startswith(f"grpo: reusing {grpo} (fingerprint ")
    assert f"{(grpo / 'table.txt').read_text()}grpo: everything lies in {grpo}\n" in again.out
    assert f"scripts/export_hf.py artefact={grpo} out=exports/{grpo.name}\n" in again.out


def test_the_same_seed_gives_the_same_bits(finished: Path, tmp_path: Path) -> None:
    assert train(overrides(tmp_path)).code == 0
    for stage in ("pretrain", "grpo"):
        assert weights(tmp_path, stage) == weights(finished, stage)
        assert metrics_rows(tmp_path, stage) == metrics_rows(finished, stage)
    assert (folder(tmp_path, "grpo") / "table.txt").read_text() == (folder(finished, "grpo") / "table.txt").read_text()


def test_another_seed_gives_another_model(finished: Path, tmp_path: Path) -> None:
    assert train([*overrides(tmp_path), "seed=1"]).code == 0
    assert weights(tmp_path, "pretrain") != weights(finished, "pretrain")
    assert weights(tmp_path) != weights(finished)


def test_fresh_makes_a_sibling_with_the_same_bits(copy_of: Path, capsys: Captured) -> None:
    before = snapshot(copy_of)
    assert train([*overrides(copy_of), "fresh=true"], capsys).code == 0
    first, second = sorted(copy_of.glob("grpo-*"), key=lambda path: len(path.name))
    assert second.name == f"{first.name}-2"
    assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()
    after = snapshot(copy_of)
    assert {name: after[name] for name in before} == before


class Fault:
    """Makes a stage's `training_step` raise at a step, once; "before" the optimizer has taken it."""

    def __init__(self, patch: pytest.MonkeyPatch, module: type, step: int, error: BaseException) -> None:
        original = module.training_step
        self.left = [error]

        def training_step(stage: Any, *arguments: Any) -> Any:
            if stage.global_step == step and self.left:
                raise self.left.pop()
            return original(stage, *arguments)

        patch.setattr(module, "training_step", training_step)


@pytest.mark.parametrize(("module", "step"), [(PretrainModule, 3), (GRPOModule, 1), (GRPOModule, 3), (GRPOModule, 4)])
def test_ctrl_c_and_the_same_command_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, module: type, step: int
) -> None:
    Fault(monkeypatch, module, step, KeyboardInterrupt())
    first = train(overrides(tmp_path), capsys)
    assert first.code == 130 and "interrupted; the same command resumes" in first.err
    stage = "grpo" if module is GRPOModule else "pretrain"
    assert not store.is_complete(folder(tmp_path, stage))
    saved = folder(tmp_path, stage) / "checkpoints" / LAST
    assert saved.exists() == (step >= 2)  # a checkpoint every two steps
    if saved.exists():
        assert torch.load(saved, weights_only=True)["global_step"] == step // 2 * 2
    second = train(overrides(tmp_path), capsys)
    assert second.code == 0 and f": resuming {folder(tmp_path, stage)}" in second.out
    assert weights(tmp_path) == weights(finished)
    for name in ("pretrain", "grpo"):
        assert metrics_rows(tmp_path, name) == metrics_rows(finished, name)


def test_a_defect_keeps_its_traceback_and_what_was_done(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(monkeypatch, GRPOModule, 3, ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        train(overrides(tmp_path))
    assert train(overrides(tmp_path)).code == 0
    assert weights(tmp_path) == weights(finished)


def test_a_full_disk_while_saving_is_one_line_and_costs_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def full(self: ResumeCheckpoint, trainer: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self.folder / LAST))

    with monkeypatch.context() as patch:
        patch.setattr(ResumeCheckpoint, "save", full)
        refused = train(overrides(tmp_path), capsys)
    assert "cannot be written: the disk is full" in refused.error
    assert train(overrides(tmp_path), capsys).code == 0
    assert weights(tmp_path) == weights(finished)


@pytest.fixture
def interrupted(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root whose GRPO stage stopped after step 3; its checkpoint is of step 2."""
    with monkeypatch.context() as patch:
        Fault(patch, GRPOModule, 3, KeyboardInterrupt())
        assert train(overrides(tmp_path)).code == 130
    return tmp_path


def test_a_damaged_checkpoint_is_one_line(finished: Path, interrupted: Path, capsys: Captured) -> None:
    saved = folder(interrupted, "grpo") / "checkpoints" / LAST
    whole = saved.read_bytes()
    for length in (0, 1, 1000, -1):
        saved.write_bytes(whole[:length])
        capsys.readouterr()
        before = snapshot(interrupted)
        refused = train(overrides(interrupted), capsys)
        assert f"checkpoint={str(saved)!r}" in refused.error and "truncated or damaged" in refused.error
        after = snapshot(interrupted)
        untouched = [name for name in before if "checkpoints" in name or "pretrain" in name or "metrics" in name]
        assert len(untouched) > 3 and all(after[name] == before[name] for name in untouched)
    saved.unlink()  # what the line advises
    assert train(overrides(interrupted), capsys).code == 0
    assert weights(interrupted) == weights(finished)


def test_a_damaged_base_model_is_one_line(copy_of: Path, capsys: Captured) -> None:
    shutil.rmtree(folder(copy_of, "grpo"))
    path = folder(copy_of, "pretrain") / "weights.safetensors"
    whole = path.read_bytes()
    for length in (0, 100, -1):
        path.write_bytes(whole[:length])
        assert str(path.parent) in train(overrides(copy_of), capsys).error
    assert not list(copy_of.glob("grpo-*")), "a stage that never began leaves no folder"


def test_a_damaged_result_is_not_passed_off_as_finished(copy_of: Path, capsys: Captured) -> None:
    path = folder(copy_of, "grpo") / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert str(path.parent) in train(overrides(copy_of), capsys).error


def test_a_broken_tokenizer_of_the_base_is_one_line(copy_of: Path, capsys: Captured) -> None:
    shutil.rmtree(folder(copy_of, "grpo"))
    (folder(copy_of, "pretrain") / "tokenizer" / "tokenizer.json").write_text('{"half": ')
    assert "tokenizer" in train(overrides(copy_of), capsys).error


# ---------------------------------------------------------------------------------------------------------- kill -9


def killed(root: Path, steps: dict[str, int]) -> Killed:
    """The real script below `root`, to be killed."""
    return Killed(root, lambda: start(overrides(root, **steps, evaluation=False)))


# Which file a run has just written, and where it then is; each kill follows after a random pause.
MOMENTS = {
    "pretraining": "pretrain-*/tokenizer/tokenizer_config.json",
    "pretraining, after a checkpoint": "pretrain-*/checkpoints/last.ckpt",
    "pretraining, after another checkpoint": "pretrain-*/checkpoints/last.ckpt",
    "between the stages": "pretrain-*/weights.safetensors",
    "self-check or first rollout": "grpo-*/tokenizer/tokenizer_config.json",
    "GRPO, after a checkpoint": "grpo-*/checkpoints/last.ckpt",
    "finishing": "grpo-*/weights.safetensors",
}
KILL_STEPS = {"pretrain_steps": 60, "grpo_steps": 40}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    killed(root, KILL_STEPS).finish()
    return root


def assert_same_results(root: Path, expected: Path) -> None:
    for stage in ("pretrain", "grpo"):
        assert weights(root, stage) == weights(expected, stage), stage
        assert metrics_rows(root, stage) == metrics_rows(expected, stage), stage


@pytest.mark.slow
def test_killed_in_every_phase_one_after_the_other_the_bits_are_the_same(uninterrupted: Path, tmp_path: Path) -> None:
    pauses = random_pauses(int.from_bytes(os.urandom(4)))
    run = killed(tmp_path, KILL_STEPS)
    log = []
    for moment in ("pretraining, after a checkpoint", "self-check or first rollout", "GRPO, after a checkpoint"):
        pause = next(pauses)
        log.append((moment, pause, run.until(MOMENTS[moment], pause)))
    run.finish()
    assert all(hit for _, _, hit in log[:2]), log
    assert_same_results(tmp_path, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_killed_again_and_again_the_bits_are_the_same(
    uninterrupted: Path, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """One kill per moment of `MOMENTS` at most; which of them hit a running process is recorded (`--junitxml`).

    "finishing" is over within milliseconds, so that its kill may come too late; five others must hit.
    """
    pauses = random_pauses(seed)
    run = killed(tmp_path, KILL_STEPS)
    hits = {moment: run.until(file, next(pauses)) for moment, file in MOMENTS.items()}
    run.finish()
    for moment, hit in hits.items():
        record_property(moment, int(hit))
    assert_same_results(tmp_path, uninterrupted)
    assert sum(hits.values()) >= 5, hits
