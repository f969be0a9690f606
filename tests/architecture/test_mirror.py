"""One test file per source file: r1_lightning/<layer>/<module>.py is tested by tests/<layer>/test_<module>.py."""

from __future__ import annotations

from tests.architecture.house import PACKAGE, ROOT, python_files

# Source files whose test stands elsewhere, with the place. A file with a test of its own may not stay here.
TESTED_ELSEWHERE: dict[str, str] = {
    "r1_lightning/__main__.py": "tests/test_console.py",
    "r1_lightning/run/config/targets.py": "tests/run/test_own_code.py",
    "r1_lightning/run/checks/stored_config.py": "tests/run/config/test_stored.py",
}


def _wanted() -> dict[str, str]:
    """Source file -> its test file, both from the root of the checkout; packages' `__init__.py` hold no code."""
    wanted = {}
    for path in python_files(PACKAGE):
        inside = path.relative_to(ROOT / PACKAGE)
        if path.name != "__init__.py":
            wanted[f"{PACKAGE}/{inside.as_posix()}"] = f"tests/{inside.with_name(f'test_{inside.name}').as_posix()}"
    return wanted


def test_every_source_file_has_its_test_file():
    without = [source for source, test in _wanted().items() if not (ROOT / test).is_file()]
    assert sorted(without) == sorted(TESTED_ELSEWHERE)


def test_the_place_named_instead_exists():
    assert [place for place in TESTED_ELSEWHERE.values() if not (ROOT / place).is_file()] == []
