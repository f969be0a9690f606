"""One command for every report: recipes are found by ID, and committed tables and pictures are redrawn to the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import pytest

from r1_lightning.run.commands import report, report_loop
from r1_lightning.run.commands.report import load, main, parser, recipe_of, recipes
from r1_lightning.types.errors import InvalidInput
from tests.architecture.house import ROOT

IDS = [
    "fp8_in_rl",
    "fp8_vs_bf16",
    "language_consistency",
    "moe_in_rl",
    "preemption",
    "r1_tiny",
    "r1_zero_tiny",
    "real_checkpoint",
    "reward_hacking",
    "scaling_laws",
]
NOT_RUN = {"scaling_laws"}  # recipes without rows
FOLDERS = [*(name for name in IDS if name not in NOT_RUN), "r1_tiny/ten_words"]  # the last: drawn by r1_tiny's recipe
DRAWN = (
    "table.md",
    "curve.png",
    "expected.json",
    "commit.txt",
)  # from rows and points; the rest is data, or written by people

OWN = '''"""Mine."""
from r1_lightning.run.commands.recipe import Made, Recipe
RECIPE = Recipe(
    seeds=[5], key={"seed": int}, fields=("seed", "value", "fingerprint"),
    runs=lambda options: [(seed,) for seed in options.seeds], overrides=lambda seed: [f"seed={seed}"],
    make=lambda seed, root: Made([{"seed": seed, "value": str(root), "fingerprint": "f"}]),
    table=lambda rows: "; ".join(f"{row['seed']} {row['value']}" for row in rows), is_of_run=lambda row: False,
)
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe of one's own, `mine`."""
    (tmp_path / "reports" / "mine").mkdir(parents=True)
    (tmp_path / "reports" / "mine" / "recipe.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_committed_report_over_seeds_has_a_recipe_and_a_test() -> None:
    assert list(recipes()) == IDS
    assert {name for name in IDS if not (ROOT / "reports" / name / "results.csv").is_file()} == NOT_RUN
    assert [name for name in IDS if not (ROOT / "tests" / "reports" / f"test_{name}.py").is_file()] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_committed_report_is_redrawn_to_the_same_bytes_whatever_the_recipe_is_today(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(*arguments: str) -> str:
        raise AssertionError("today's fingerprint is nobody's concern")

    monkeypatch.setattr(report_loop, "planned_fingerprint", compare)
    committed, out = ROOT / "reports" / folder, tmp_path / "out"
    drawn = [path for path in committed.iterdir() if path.name in DRAWN]
    shutil.copytree(committed, out, ignore=shutil.ignore_patterns(*DRAWN, "__pycache__"))
    assert main([folder.partition("/")[0], "--redraw", "--out", str(out)]) == 0
    assert {path.name for path in drawn} >= {"table.md"}
    assert sorted(p.name for p in out.iterdir()) == sorted(
        p.name for p in committed.iterdir() if p.name != "__pycache__"
    )
    for path in drawn:
        if path.suffix != ".png" or f"version{matplotlib.__version__}, ".encode() in path.read_bytes():
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_recipe_of_ones_own_runs_and_is_redrawn(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(recipes()) == sorted([*IDS, "mine"])
    assert main(["mine", "--seeds", "1", "2"]) == 0
    assert (own / "reports" / "mine" / "table.md").read_text() == "1 runs/mine; 2 runs/mine"
    assert main(["mine", "--root", "elsewhere"]) == 0  # seed 5, which the recipe names
    assert capsys.readouterr().out.endswith("5 elsewhere\n")
    (own / "reports" / "mine" / "table.md").unlink()
    assert main(["mine", "--redraw"]) == 0
    assert (own / "reports" / "mine" / "table.md").read_text() == "1 runs/mine; 2 runs/mine; 5 elsewhere"


@pytest.mark.parametrize("name", ["gone", "../reports/mine", "mine/recipe.py", "kill_9", ""])
def test_what_is_no_id_is_refused_with_the_ids_there_are(
    name: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    said = f"error: report={name!r} is not allowed: it must be one of {', '.join(sorted([*IDS, 'mine']))}\n"
    assert capsys.readouterr().err == said


def test_a_folder_that_is_no_plain_name_is_no_report(own: Path) -> None:
    for name in ("Mine", "my-report", ".hidden"):
        shutil.copytree(own / "reports" / "mine", own / "reports" / name)
    assert list(recipes()) == sorted([*IDS, "mine"])


def test_a_recipe_that_exports_none_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = own / "reports" / "mine" / "recipe.py"
    path.write_text('"""Empty."""\n', encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"mine/recipe.py: it must export RECIPE"):
        recipe_of(load(path))
    assert main(["mine"]) == 2 and capsys.readouterr().err.startswith("error: ")


def test_help_lists_the_reports_with_their_titles(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("  mine                  Mine.") == 2
    assert sum(line.startswith(tuple(f"  {name} " for name in IDS)) for line in lines) == 2 * len(IDS)


def test_a_report_has_options_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(load(recipes()["r1_tiny"]))
    options = parser("r1_tiny", "", recipe).parse_args(["--experiment", "r1_family_tiny", "--seeds", "4"])
    assert list(recipe.runs(options)) == [("r1_family_tiny", 4)]
    with pytest.raises(SystemExit):
        main(["r1_tiny", "--help"])
    assert "--experiment {r1_tiny,r1_family_tiny}" in capsys.readouterr().out


def test_the_checkout_is_where_recipes_lie(own: Path) -> None:
    assert report.CHECKOUT == ROOT and recipes()["r1_tiny"] == ROOT / "reports" / "r1_tiny" / "recipe.py"
