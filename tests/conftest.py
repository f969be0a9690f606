"""Settings that hold for the whole suite, and the fixtures every folder shares.

Tests run on one thread each: pytest-xdist already uses every core, and with one thread a sum has one order, so that
golden numbers do not depend on how many cores a machine has.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch is loaded, and inherited by the processes that tests start.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a network

# A shell that starts the tests in the background has SIGINT ignored, and every process below would inherit that: the tests
# of Ctrl-C would wait for ever. Set here, a process that a test starts has the usual answer to it.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from r1_lightning.rewards.sandbox.sandbox import isolation  # noqa: E402
from tests.support.tiers import Tiers  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers(config), "tiers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is no GPU, and refuse a test that claims two tiers."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("requires_gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("slow") and item.get_closest_marker("long"):
            raise pytest.UsageError(f"{item.nodeid} is marked slow and long: a test has one tier")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout: the folder with pyproject.toml, configs/ and scripts/."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data kept beside the checkout and never committed (GSM8K, samples of other data sets); skips without it."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the real data in ../shared/data, beside the checkout")
    return folder


@pytest.fixture(scope="session")
def isolated() -> None:
    """Tests of the sandbox run where programs can be isolated; elsewhere they skip, or fail where `.ci/run` asks for them."""
    found = isolation()
    if not found.available:
        without_isolation(found.missing)


def without_isolation(missing: str) -> None:
    """Skip with the reason; fail under R1_REQUIRE_SANDBOX=1, because a CI that never ran these tests has shown nothing."""
    if os.environ.get("R1_REQUIRE_SANDBOX") == "1":
        pytest.fail(f"R1_REQUIRE_SANDBOX=1, and programs cannot be isolated: {missing}", pytrace=False)
    pytest.skip(f"programs cannot be isolated here: {missing}")
