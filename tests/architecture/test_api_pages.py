"""`make docs` writes a page for every module, from docstrings and annotations; skipped where the extra `docs` is missing."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.house import PACKAGE, ROOT, python_files

FOLDER = "docs/api"


def recipe() -> list[str]:
    """The command behind `make docs`, as words."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    match = re.search(r"^docs:.*\n\t(.+)$", makefile, re.M)
    assert match is not None
    return shlex.split(match[1])


def page(module: Path) -> str:
    """Where the page of a source file lies; a package's is that of its `__init__.py`."""
    inside = module.relative_to(ROOT).with_suffix("")
    return f"{(inside.parent if inside.name == '__init__' else inside).as_posix()}.html"


def test_the_pages_go_to_a_folder_that_git_ignores() -> None:
    assert FOLDER in recipe()
    assert f"/{FOLDER}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_every_module_has_its_page(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="needs the extra `docs`")
    program, *words = [str(tmp_path) if word == FOLDER else word for word in recipe()]
    assert program == "python"
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    modules = [path for path in python_files(PACKAGE) if path.name != "__main__.py"]
    assert [page(path) for path in modules if not (tmp_path / page(path)).is_file()] == []
    text = re.sub(r"<[^>]+>", "", (tmp_path / PACKAGE / "functional" / "kl.html").read_text(encoding="utf-8"))
    assert "policy_logprobs" in text and "Float[Tensor" in text  # jaxtyping's shapes are legible
