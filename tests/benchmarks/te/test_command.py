"""The command without Transformer Engine, and with a stand-in for it: what it prints, writes and answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.te import check, command
from tests.support import fake_te

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in fake_te.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(check, "CHECKS", {"a": lambda: "b"})


def test_without_the_package_one_line_says_so(tmp_path: Path, capsys: Captured) -> None:
    assert command.main(["--out", str(tmp_path / "x.md")]) == 2
    error = capsys.readouterr().err
    assert error == "error: transformer_engine: ModuleNotFoundError: No module named 'transformer_engine'\n"
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_the_table_that_is_printed(installed: None, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "te" / "README.md"
    assert command.main(["--out", str(out)]) == 0
    text = out.read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "\npython 3." in text and "transformer-engine absent" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 1 + len(check.titles())


def test_what_does_not_hold_is_the_exit_code(
    installed: None, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(check, "rows", lambda: [check.Row("a | b*", check.FAILS, "c")])
    assert command.main([]) == 1
    assert capsys.readouterr().out.endswith("| a \\| b\\* | does not hold | c |\n\n")
