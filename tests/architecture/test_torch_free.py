"""What handles only words never loads torch, seen from a fresh process: a verifier worker has to start in milliseconds.

The import contract says the same of the source; this says it of what really happens, third-party packages included.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import r1_lightning
from tests.architecture.house import PACKAGE, ROOT


def _modules_of(layer: str) -> list[str]:
    files = sorted((ROOT / PACKAGE / layer).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


TORCH_FREE = {
    "package": [PACKAGE],
    "types": [f"{PACKAGE}.types.errors", f"{PACKAGE}.types.text"],
    "text": _modules_of("text"),
    "tasks": _modules_of("tasks"),
    "rewards": _modules_of("rewards"),  # verifier workers among them
    "review": _modules_of("review"),
}


@pytest.mark.parametrize("group", TORCH_FREE)
def test_imports_no_torch(group):
    assert _first_that_loads_torch(TORCH_FREE[group]) == ""


def test_the_check_itself_can_fail():
    assert _first_that_loads_torch([f"{PACKAGE}.types.text", f"{PACKAGE}.types.tensors"]) == f"{PACKAGE}.types.tensors"


def test_the_package_alone_loads_no_layer():
    code = f"import sys, {PACKAGE}; print([name for name in sys.modules if name.startswith('{PACKAGE}.')])"
    assert _run(code) == "[]"


def test_a_layer_is_loaded_when_it_is_named():
    code = f"import sys, {PACKAGE}; {PACKAGE}.types; print('{PACKAGE}.types' in sys.modules)"
    assert _run(code) == "True"


def test_the_package_lists_its_layers_and_no_other():
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert set(r1_lightning.LAYERS) == folders
    assert folders <= set(dir(r1_lightning))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'transformer'"):
        r1_lightning.transformer  # noqa: B018


def _first_that_loads_torch(modules: list[str]) -> str:
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        print(name)\n"
        "        break\n"
    )
    return _run(code)


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
