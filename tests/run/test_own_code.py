"""Code of one's own beside a command, and none of a stranger's in somebody else's configuration."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.checks.stored_config import read_config
from r1_lightning.run.config.targets import refuse_foreign_targets
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem
from tests.run.conftest import REAL_CONFIGS, Command
from tests.run.fakes import Recorder
from tests.support.commands import SMALL_MODEL

DATACLASS_REWARD = """
from dataclasses import dataclass
from r1_lightning.types.text import Verdict

@dataclass
class Brevity:
    name: str = "brevity"

    def __call__(self, problem, completion):
        return Verdict(1.0 if completion.n_tokens <= 32 else 0.0, "")
"""


@pytest.fixture
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_rewards", None)


def readme_reward(repo_root: Path) -> tuple[str, str]:
    """The Python file and the YAML option of README's "The reward"."""
    section = (repo_root / "README.md").read_text(encoding="utf-8").split("- **The reward**", 1)[1]
    blocks = [re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("python", "yaml")]
    code, option = (re.sub(r"^  ", "", block[1], flags=re.MULTILINE) for block in blocks if block)
    return code, option


class PartsRecorder(Recorder):
    """Also builds the parts of each stage that has a reward, as the real runner does."""

    def __call__(self, config: object, stage: str, folder: Path, inputs: dict[str, Artefact]) -> dict[str, float]:
        self.calls.append((stage, folder, inputs, config))
        self.parts = build_parts(config, None)
        (folder / "weights.safetensors").write_bytes(b"weights")
        return {}


@pytest.mark.parametrize("is_dataclass", [False, True])
def test_the_reward_of_the_readme_works(
    command: Command, tmp_path: Path, repo_root: Path, own_modules: None, is_dataclass: bool
) -> None:
    code, option = readme_reward(repo_root)
    assert "class Brevity" in code and "my_rewards.Brevity" in option
    (tmp_path / "my_rewards.py").write_text(DATACLASS_REWARD if is_dataclass else code)
    configs = Path(shutil.copytree(REAL_CONFIGS, tmp_path / "configs"))
    (configs / "reward" / "mine.yaml").write_text(option)
    recorder = PartsRecorder()
    small = [override for override in SMALL_MODEL if "self_check" not in override]
    outcome = command("stage=grpo", "reward=mine", "debug=fast", *small, recorder=recorder, configs=configs)
    assert outcome.code == 0, outcome.err
    problem = Problem("What is 1+2?", "3", "1+2", "en", 1)
    verdict = recorder.parts["reward"](problem, Completion(" <think> 1+2=3 </think> <answer> 3 </answer>", 20, True))
    # right and well formed and short: 1.0 * 1 + 1.0 * 1 + 0.2 * 1
    assert verdict.scores == {"accuracy": 1.0, "format": 1.0, "brevity": 1.0} and verdict.total == pytest.approx(2.2)


def test_edited_code_is_other_code(command: Command, tmp_path: Path, repo_root: Path, own_modules: None) -> None:
    """The same command after a change of one's own reward must not answer with the old result."""
    code, option = readme_reward(repo_root)
    configs = Path(shutil.copytree(REAL_CONFIGS, tmp_path / "configs"))
    (configs / "reward" / "mine.yaml").write_text(option)
    small = [override for override in SMALL_MODEL if "self_check" not in override]
    made = []
    for text in (code, code, code.replace("<= 32", "<= 16")):
        (tmp_path / "my_rewards.py").write_text(text)
        sys.modules.pop("my_rewards", None)
        recorder = PartsRecorder()
        assert command("stage=grpo", "reward=mine", "debug=fast", *small, recorder=recorder, configs=configs).code == 0
        made.append([stage for stage, *_ in recorder.calls])
    assert made == [["pretrain", "grpo"], [], ["grpo"]]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "my_rewards.Brevity",
        "r1_lightning_evil.Thing",
        "r1_lightning.artefacts.files.os.system",  # begins as ours do
        "r1_lightning.run.commands.report_runs.train",  # ours, and no part of a configuration: it starts processes
        "lightning.Trainer.fit",
        3,
    ],
)
def test_a_stranger_s_target_is_refused(target: object) -> None:
    with pytest.raises(InvalidInput, match=r"reward\.rewards\.0\._target_=.*--trust-targets"):
        refuse_foreign_targets({"reward": {"rewards": [{"_target_": target}]}})


def test_our_own_targets_are_not_refused() -> None:
    ours = ["r1_lightning.rewards.combine.WeightedSum", "r1_lightning.stages.grpo.GRPOModule", "lightning.Trainer"]
    nodes = {str(index): {"_target_": target} for index, target in enumerate(ours)}
    refuse_foreign_targets(nodes)
    with pytest.raises(InvalidInput):  # the same call with a stranger among them
        refuse_foreign_targets({**nodes, "other": {"_target_": "os.system"}})


def test_a_missing_or_broken_configuration_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for content in (None, b"{", b"\xff\xfe", b"- 1\n", b"a: ${nowhere}\n"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InvalidInput, match=r"config=.*config\.yaml' is not allowed"):
            read_config(path, trust_targets=False)


def test_nothing_is_imported_before_it_is_trusted(tmp_path: Path, own_modules: None, repo_root: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("reward: {_target_: my_rewards.Brevity}\nseed: -1\n")
    (tmp_path / "my_rewards.py").write_text("raise SystemExit('ran')")
    sys.path.append(str(tmp_path))
    with pytest.raises(InvalidInput, match="--trust-targets"):
        read_config(path, trust_targets=False)
    assert "my_rewards" not in sys.modules
    with pytest.raises(InvalidInput, match="seed=-1"):  # then it is checked as any configuration is
        read_config(path, trust_targets=True)


def test_loggers_and_callbacks_are_not_in_the_way(tmp_path: Path) -> None:
    """They are no part of what is measured: neither asked for trust nor imported, Lightning's own among them."""
    path = tmp_path / "config.yaml"
    for target in ("lightning.pytorch.loggers.TensorBoardLogger", "my_loggers.Absent", "os.system"):
        path.write_text(f"logger: {{x: {{_target_: {target}}}}}\ncallbacks: {{y: {{_target_: {target}}}}}\nseed: -1\n")
        with pytest.raises(InvalidInput, match="seed=-1"):
            read_config(path, trust_targets=False)
