"""The stages that have no test of several processes of their own: two processes make the artefact that one makes.

The slow tier divides the weights (`trainer=fsdp`), which needs every process in each forward; whole copies (`trainer=ddp`) are
`long`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from tests.run.test_processes import CLOSE, difference
from tests.support.commands import SMALL_MODEL, folder, train
from tests.support.launched import by_starter, kill_all


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    """Kill what a test that has failed leaves behind."""
    yield
    kill_all()


# Counts that two processes cannot divide evenly, and for reward model and DPO a measurement after each step, too.
EVALUATED = {
    "distill": [
        "stage.evaluation={_target_: r1_lightning.evaluation.runner.EvaluationConfig, problems: 3, samples: 1, max_new_tokens: 8}"
    ],
    "reward_model": [
        "stage.evaluation={_target_: r1_lightning.evaluation.preferences.PreferenceEvaluationConfig, items: 5, items_per_batch: 2}",
        "callbacks.evaluation.every_steps=1",
        "callbacks.evaluation.problems=3",
    ],
    "dpo": [
        "stage.evaluation={_target_: r1_lightning.evaluation.preferences.PolicyEvaluationConfig, problems: 3, samples: 1, max_new_tokens: 8, pairs: 5, pairs_per_batch: 2}",  # noqa: E501
        "callbacks.evaluation.every_steps=1",
        "callbacks.evaluation.problems=3",
    ],
}


@pytest.mark.parametrize(
    "trainer", [pytest.param("ddp", marks=pytest.mark.long), pytest.param("fsdp", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("stage", ["distill", "reward_model", "dpo", "sample", "compare"])
def test_the_other_stages_make_what_one_process_makes(stage: str, trainer: str, tmp_path: Path) -> None:
    """The same folder names; weights and measures near those of one process, sampled rows and measured models to the byte."""
    small = [word for word in SMALL_MODEL if "self_check" not in word]
    own = ["+stage.inputs.mine=pretrain", "stage.requests=2"] if stage == "compare" else []
    given = [f"stage={stage}", "debug=fast", *small, *own, *EVALUATED.get(stage, ()), "trainer.threads=1"]
    made = by_starter([*given, f"paths.root={tmp_path / 'two'}"], 2, trainer)
    assert made.code == 0, made.err
    assert train([*given, "trainer.accelerator=cpu", f"paths.root={tmp_path / 'one'}"]).code == 0
    one, two = (folder(tmp_path / name, stage) for name in ("one", "two"))
    assert sorted(path.name for path in one.parent.iterdir()) == sorted(path.name for path in two.parent.iterdir())
    if store.open_artefact(one).files:
        names = {path.relative_to(one) for form in ("blocks/*", "models/*", "data/*") for path in one.glob(form)}
        assert len(names) >= 2 and all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    else:
        assert difference(tmp_path / "two", tmp_path / "one", stage) < CLOSE
    found, expected = (store.open_artefact(place).metrics for place in (two, one))
    timeless = {name: value for name, value in expected.items() if not name.startswith("perf/")}
    assert len(timeless) > 3
    assert {name: found[name] for name in timeless} == pytest.approx(timeless, rel=1e-4, abs=1e-6, nan_ok=True)
