"""Packages in a sandbox: only named ones, read-only, imported once for all cases, otherwise as in a plain interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1_lightning.rewards.code_reward import CodeReward
from r1_lightning.rewards.sandbox import allowed_packages
from r1_lightning.rewards.sandbox.sandbox import Outcome, Program, Sandbox
from r1_lightning.text.code_tests import CodeCase, CodeTests
from r1_lightning.types.errors import InvalidInput
from tests.rewards.sandbox.hostile_programs import TAME, TESTS_OF
from tests.rewards.test_code_reward import judge

pytestmark = pytest.mark.usefixtures("isolated")

# Each doubles its number by NumPy.
HONEST = [
    "import numpy as np\nprint(2 * np.int64(input()))",
    "import numpy as np\nn = int(input())\nprint(int(round(float(np.linalg.solve(np.eye(2) / 2, np.full(2, n))[0]))))",
    "from numpy import array\nprint((array([1, 1]) @ array([int(input())] * 2)))",
    "import sys, numpy\nprint(numpy.fromstring(sys.stdin.read(), dtype=int, sep=' ').sum() * 2)",
    "import numpy as np\nn = int(input())\na = np.ones((200, 200))\nprint(int((a @ a)[0, 0] * n // 100))",
    "import numpy as np\nn = int(input())\nprint(2 * n if np.random.rand() == np.random.RandomState(0).rand() else 0)",
    "import numpy as np\nn = int(input())\nprint(int(np.rint(np.fft.ifft(np.fft.fft([n, n])).real.sum())))",
    "import importlib\nprint(2 * int(importlib.import_module('num' + 'py').int32(input())))",
]
# Right only where they see or change what they must not.
HOSTILE = [
    "import torch\nprint(2 * int(input()))",
    "import sympy\nprint(2 * int(input()))",
    "import numpy, os\nif set(os.listdir('/packages')) - {'numpy', 'numpy.libs'}:\n    print(2 * int(input()))",
    "import numpy\nopen(numpy.__file__, 'a')\nprint(2 * int(input()))",
    "import os\nos.mkdir('/packages/x')\nprint(2 * int(input()))",
    "import numpy\nnumpy.ones(1 << 28)\nprint(2 * int(input()))",  # 2 GiB
    "import numpy, os\nos.fork()\nprint(2 * int(input()))",
    "import numpy, os\nif os.path.exists('/proc') or os.path.exists('/etc'):\n    print(2 * int(input()))",
    # The first case wants 8, the second 42.
    "import numpy\nprint(42 if hasattr(numpy, 'seen') else 8)\nnumpy.seen = True",
]


def printed(source: str, packages: dict[str, str]) -> str:
    with Sandbox(Program("stdin", source), packages=packages) as box:
        return box.run("").stdout


@pytest.fixture(scope="module")
def reward() -> CodeReward:
    return CodeReward(workers=1, packages=["numpy"])


@pytest.mark.parametrize("program", HONEST)
def test_numpy_on_request(reward: CodeReward, program: str) -> None:
    assert judge(reward, program, TESTS_OF["stdin"]).score == 1.0


@pytest.mark.parametrize("program", HOSTILE)
def test_nothing_else_comes_with_it(reward: CodeReward, program: str) -> None:
    assert judge(reward, program, TESTS_OF["stdin"]).score == 0.0


def test_none_by_default() -> None:
    plain = CodeReward(workers=1)
    assert plain.packages == {}
    verdict = judge(plain, HONEST[0], TESTS_OF["stdin"])
    assert verdict.score == 0.0 and "ModuleNotFoundError: No module named 'numpy'" in verdict.reason
    assert printed("import os\nprint(os.path.exists('/packages'))", {}) == "False\n"


def test_functions_may_return_its_numbers(reward: CodeReward) -> None:
    tests = CodeTests("call", (CodeCase("[21]", "[42, 42.0, true]"),), entry_point="f")
    program = "import numpy as np\ndef f(n):\n    return np.int32(2 * n), np.float32(2 * n), np.bool_(True)"
    assert judge(reward, program, tests).score == 1.0
    assert "not data" in judge(reward, "import numpy as np\ndef f(n):\n    return np.array([42, 42, 1])", tests).reason
    script = "import numpy as np\ndef double(n):\n    return np.int64(2 * n)"
    assert judge(reward, script, TESTS_OF["assert"]).score == 1.0


def test_what_mentions_no_package_is_as_before(reward: CodeReward) -> None:
    for kind, program in TAME.items():
        assert judge(reward, program, TESTS_OF[kind]).score == 1.0
    source = "import sys\nprint('numpy' + '' in sys.modules)"  # mentioned, so there
    assert printed(source, reward.packages) == "True\n"
    source = source.replace("'numpy' + ''", "'num' + 'py'")
    assert printed(source, reward.packages) == "False\n"


def test_without_isolation_too() -> None:
    found = allowed_packages.find(["numpy"])
    source = (
        "import numpy, os\nprint(sorted(os.listdir(os.path.dirname(os.path.dirname(numpy.__file__)))))\n"
        "try:\n    import sympy\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    with Sandbox(Program("stdin", source), isolated=False, packages=found) as box:
        outcome = box.run("")
    assert outcome == Outcome("", f"{sorted(found)}\nNo module named 'sympy'\n")


def test_a_package_that_needs_another_needs_its_name() -> None:
    source = "from sympy import Integer\nprint(2 * Integer(input()))"
    for names, score in ((["sympy"], 0.0), (["sympy", "mpmath"], 1.0)):
        verdict = judge(CodeReward(workers=1, packages=names), source, TESTS_OF["stdin"])
        assert verdict.score == score and ("mpmath" in verdict.reason) == (score == 0.0)


@pytest.mark.parametrize(
    "name",
    ["nothing", "../etc", "/etc", "numpy/core", "numpy.libs", "", ".", "six", "r1_lightning", "__pycache__", 5, None],
)
def test_what_is_no_package_is_refused_by_name(name: object) -> None:
    with pytest.raises(
        InvalidInput, match=r"^packages=.* is not allowed: .* is no (name|folder) of a package"
    ) as refused:
        CodeReward(packages=["numpy", name])  # type: ignore[list-item]
    assert repr(name) in str(refused.value) and "\n" not in str(refused.value)


def test_only_folders_of_site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site-packages"
    for folder in (site / "whole", site / "whole.libs", site / "no_init", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    for file in (site / "whole" / "__init__.py", tmp_path / "elsewhere" / "__init__.py", site / "module.py"):
        file.write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(site)])
    assert allowed_packages.find(["whole"]) == {name: str(site / name) for name in ("whole", "whole.libs")}
    for name in ("no_init", "elsewhere", "module"):
        with pytest.raises(LookupError, match=f"'{name}' is no folder of a package"):
            allowed_packages.find([name])
