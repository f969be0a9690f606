"""R1's protocol on published benchmarks."""

from __future__ import annotations

import pytest
import yaml

from r1_lightning.evaluation.benchmarks import SAMPLES, settings_of
from r1_lightning.evaluation.runner import EvaluationConfig
from tests.support.commands import CONFIGS


@pytest.mark.parametrize(
    ("name", "k"), [("aime24", 64), ("gpqa", 64), ("math500", 16), ("livecodebench", 8), ("gsm8k", 4)]
)
def test_the_papers_k_temperature_and_nucleus(name: str, k: int) -> None:
    """R1v2, appendix D.1; it says nothing of GSM8K."""
    settings = EvaluationConfig(**settings_of(name))
    assert (settings.samples, settings.sampling_temperature, settings.top_p) == (k, 0.6, 0.95)


@pytest.mark.parametrize("name", [None, "arithmetic", "r1_tiny"])
def test_other_tasks_keep_their_own_settings(name: str | None) -> None:
    assert settings_of(name) == {}


def test_every_benchmark_has_its_k_and_is_a_task() -> None:
    listed = yaml.safe_load((CONFIGS / "benchmarks" / "all.yaml").read_text())["defaults"]
    benchmarks = {task.partition("@")[0] if isinstance(task, str) else next(iter(task.values())) for task in listed}
    assert benchmarks - {"_self_"} <= set(SAMPLES)
    assert all((CONFIGS / "task" / f"{name}.yaml").is_file() for name in SAMPLES)
