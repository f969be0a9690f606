"""The import contract of pyproject.toml holds, and would be noticed if it did not.

Each fault below is written into a copy of the package, where `lint-imports` has to name the contract it breaks: a
contract with a spelling mistake, or one that skips imports inside functions, would be kept by everything.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.house import PACKAGE, ROOT

# What is written where, and the contract that has to break.
FAULTS = {
    "up": ("types/text.py", "import r1_lightning.functional", "Imports point down only"),
    "up_while_type_checking": (
        "functional/fault.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import r1_lightning.tasks",
        "Imports point down only",
    ),
    "up_inside_a_function": ("model/fault.py", "def f():\n    import r1_lightning.rollout", "Imports point down only"),
    "sideways": ("rewards/fault.py", "import r1_lightning.model", "Imports point down only"),
    "new_package_without_layer": ("helpers/__init__.py", "x = 1", "Imports point down only"),
    "up_to_the_program": ("run/commands/fault.py", "import r1_lightning.__main__", "Imports point down only"),
    "up_inside_run": ("run/config/fault.py", "import r1_lightning.run.checks.rules", "Rooms of run"),
    "sideways_inside_run": ("run/build/fault.py", "def f():\n    import r1_lightning.run.checks.rules", "Rooms of run"),
    "new_room_without_layer": ("run/attic/__init__.py", "x = 1", "Rooms of run"),
    "cycle": ("text/fault_a.py", "import r1_lightning.text.fault_b", "No cycles"),
    "lightning_below_the_glue": ("rollout/fault.py", "import lightning.pytorch", "Lightning only"),
    "hydra_in_a_stage": ("stages/fault.py", "import omegaconf", "Hydra and OmegaConf only in run"),
    "torch_in_a_task": ("tasks/fault.py", "import torch.nn", "No torch"),
    "torch_by_way_of_a_neighbour": ("text/fault.py", "import r1_lightning.types.tensors", "No torch"),
    "transformer_engine": ("model/fault.py", "import transformer_engine.pytorch", "Transformer Engine only"),
    "torch_in_a_review": ("review/fault.py", "def f():\n    import r1_lightning.artefacts.weights", "No torch"),
    "vllm": ("rollout/fault.py", "def f():\n    from vllm import LLM", "vLLM only"),
    "peft": ("stages/fault.py", "def f():\n    import peft", "peft only"),
}


def test_contract_is_kept():
    result = _lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_contract_notices(fault, tmp_path):
    file, source, contract = FAULTS[fault]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path / PACKAGE / file
    target.parent.mkdir(exist_ok=True)
    with target.open("a", encoding="utf-8") as stream:
        stream.write(f"\n{source}\n")
    if fault == "cycle":  # the other half
        (tmp_path / PACKAGE / "text" / "fault_b.py").write_text("import r1_lightning.text.fault_a\n", encoding="utf-8")

    result = _lint_imports(tmp_path)

    assert result.returncode == 1, result.stdout + result.stderr
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]  # "(1 ignored import)" may follow
    assert any(line.startswith(contract) for line in broken), result.stdout


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run([*command, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120)
