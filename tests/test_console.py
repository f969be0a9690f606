"""The program `r1`: every command by its name, its answers without torch, and what a command finds in `sys.argv`."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra.errors import HydraException

from r1_lightning import __main__ as console
from r1_lightning import __version__
from r1_lightning.run import cli
from r1_lightning.run.config.exit_codes import NOTED
from r1_lightning.types.errors import Stopped
from r1_lightning.types.stopping import REQUEUE, STOP
from tests.architecture.house import ROOT

Captured = pytest.CaptureFixture[str]


def r1(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/r1", *words])
    with STOP.listening():  # a command listens to signals to its end; here Python's handlers come back
        return console.main()


@pytest.mark.parametrize("name", console.COMMANDS)
def test_a_command_leads_to_a_function_without_arguments(name: str) -> None:
    """Read from its source, since importing it may take seconds."""
    module, _, function = console.COMMANDS[name].entry.partition(":")
    spec = find_spec(console.ROOMS + module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    assert len(found.args.defaults) == len(found.args.args) and ast.unparse(found.returns or found) == "int"


def test_every_script_of_the_package_is_a_command() -> None:
    """gpu_check, te_check and what_has_run need the checkout."""
    names = set()
    for path in (ROOT / "scripts").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "run":
                names.add(ast.literal_eval(node.args[0]))
    assert names == set(console.COMMANDS)


def test_help_has_a_line_for_every_command(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert r1(monkeypatch, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: r1 COMMAND [ARGUMENT ...]"
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(console.COMMANDS)
    assert all(len(line) <= 100 for line in lines)
    assert r1(monkeypatch) == 2 and capsys.readouterr().out.splitlines() == lines


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert r1(monkeypatch, "--version") == 0 and capsys.readouterr().out == f"r1_lightning {__version__}\n"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian", "stage=grpo"], "; did you mean r1 train?"),
        (["show_problems"], "; did you mean r1 show-problems?"),
        (["stage=grpo", "debug=fast"], "; did you mean r1 train stage=grpo debug=fast?"),
        (["xyzzy"], ""),
        ([""], ""),
    ],
)
def test_an_unknown_command_is_one_line(
    words: list[str], meant: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert r1(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    said = f"error: command={words[0]!r} is not allowed: it must be one of train, sample, "
    assert error.startswith(said) and error.count("\n") == 1
    assert error.endswith(f"{meant}\n") and ("did you mean" in error) == bool(meant)


def test_a_command_has_its_own_arguments_and_name(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    seen = []
    monkeypatch.setattr(cli, "main", lambda: seen.append(list(sys.argv)) or 7)
    assert r1(monkeypatch, "train", "stage=grpo", "-m") == 7
    assert seen == [["r1 train", "stage=grpo", "-m"]]
    with pytest.raises(SystemExit):
        r1(monkeypatch, "lineage", "--help")
    assert capsys.readouterr().out.startswith("usage: r1 lineage [-h] artefact")


def test_sample_is_the_stage_of_that_name_unless_another_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(cli, "main", lambda: seen.append(sys.argv[1:]) or 0)
    assert r1(monkeypatch, "sample", "stage.samples=4") == r1(monkeypatch, "sample", "stage=mine") == 0
    assert seen == [["stage=sample", "stage.samples=4"], ["stage=mine"]]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["trian"]])
def test_it_answers_without_hydra_and_torch(words: list[str]) -> None:
    code = f"import sys; sys.argv = ['r1', *{words!r}]; from r1_lightning.__main__ import main; main(); "
    code += "print([name for name in ('torch', 'hydra', 'lightning') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr


def test_spinning_is_bounded_before_a_command_is_imported() -> None:
    code = "import os, sys; from r1_lightning import __main__ as console; os.environ.pop('OMP_WAIT_POLICY', None); "
    code += (
        "os.environ.pop('GOMP_SPINCOUNT', None); assert 'torch' not in sys.modules; sys.argv = ['r1', 'runs', '-h']; "
    )
    code += "console.main(); assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "2000", done.stderr


def test_python_m_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "r1_lightning", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"r1_lightning {__version__}\n"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_an_import_that_would_swallow_it(number: int, tmp_path: Path) -> None:
    """As many packages do: a bare `except` around an import of theirs, then seconds of more imports."""
    swallow = f"""
import os, sys
from r1_lightning import __main__ as console
def spoiled(name):
    try:
        os.kill(os.getpid(), {int(number)})
    except BaseException:
        pass
    print("imported to its end", flush=True)
    os._exit(0)
console.import_module, sys.argv = spoiled, ["r1", "train"]
console.main()
"""
    environment = {**os.environ, NOTED: str(tmp_path / "codes")}
    done = subprocess.run(
        [sys.executable, "-c", swallow], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    code = 130 if number == signal.SIGINT else REQUEUE
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "\ninterrupted; the same command resumes\n")
    assert (tmp_path / "codes").read_text() == f"{code}\n"


def test_a_package_that_cannot_be_imported_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("numpy.core.multiarray failed to import")

    monkeypatch.setattr(console, "import_module", missing)
    with pytest.raises(ImportError):
        r1(monkeypatch, "train")


def test_a_parser_that_makes_an_error_of_a_signal_is_a_stop(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Hydra's, before the configuration is composed; a fault found later is told, whatever was asked for."""

    def spoiled() -> None:
        raise HydraException("")

    progress = cli._Progress((), {})
    monkeypatch.setattr(STOP, "asked", Stopped("SIGTERM", REQUEUE))
    assert cli._report(spoiled, progress, ROOT / "configs", "train", False) == REQUEUE
    assert capsys.readouterr().err == "SIGTERM; the same command resumes\n"
    progress.composed = True
    with pytest.raises(HydraException):
        cli._report(spoiled, progress, ROOT / "configs", "train", False)
