"""The command: what is listed, what is typed, what is written, and that every committed table is what its rows give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from r1_lightning.run.commands import report_loop
from r1_lightning.run.commands.report import recipes
from r1_lightning.run.commands.reproduce_table import differing, main, parse
from r1_lightning.run.commands.tables.declared import read_table, tables
from r1_lightning.run.commands.tables.derived import rows_of
from r1_lightning.types.errors import InvalidInput
from tests.architecture.house import ROOT

Captured = pytest.CaptureFixture[str]
DERIVED = [name for name, path in tables().items() if read_table(path).report]


def test_every_committed_table_is_what_its_rows_give() -> None:
    assert list(differing(ROOT / "reports")) == []


def test_check_finds_a_number_that_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    shutil.copytree(ROOT / "reports" / "r1_zero_tiny", tmp_path / "reports" / "r1_zero_tiny")
    monkeypatch.chdir(tmp_path)
    assert main(["table=r1_zero_vs_o1"]) == 0
    capsys.readouterr()
    assert main(["--check"]) == 0 and capsys.readouterr().err == ""
    page = tmp_path / "reports" / "r1_zero_vs_o1" / "table.md"
    page.write_text(page.read_text().replace("| 0.", "| 1.", 1))
    assert main(["--check"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("reports/r1_zero_vs_o1/table.md: it is not what its rows give\n") and said.count("\n") == 1


def test_check_finds_a_report_that_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "reports" / "moe_in_rl", tmp_path / "reports" / "moe_in_rl")
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "reports" / "moe_in_rl" / "table.md"
    page.write_text(page.read_text() + "\n")
    assert list(differing(tmp_path / "reports")) == [page]


def test_the_list_has_every_table_and_every_report(capsys: Captured) -> None:
    assert main(["--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == sorted({*tables(), *recipes()}) and len(names) >= 14


@pytest.mark.parametrize("name", DERIVED)
def test_a_table_of_a_report_is_written_where_it_is_asked_for(name: str, tmp_path: Path, capsys: Captured) -> None:
    assert main([f"table={name}", f"out={tmp_path / 'mine'}"]) == 0
    assert (tmp_path / "mine" / "table.md").read_text() == capsys.readouterr().out.removesuffix("\n")


@pytest.mark.parametrize("name", DERIVED)
def test_a_table_takes_one_row_for_each_number(name: str) -> None:
    """Of two rows of an arm, a measure and a seed, one is of another configuration."""
    table = read_table(tables()[name])
    rows, _ = rows_of(table, ROOT / "reports")
    for arm in (arm for arm in table.arms.values() if arm.rows):
        for measure in table.measures.values():
            wanted = {**arm.rows, **(measure.rows or {"measure": measure.name})}
            seeds = [row["seed"] for row in rows if all(row.get(key) == text for key, text in wanted.items())]
            assert len(seeds) == len(set(seeds)), (arm.name, measure.name, seeds)


def test_a_recipe_is_redrawn_by_its_own_table(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    shutil.copytree(ROOT / "reports" / "moe_in_rl", out)
    (out / "table.md").unlink()
    assert main(["table=moe_in_rl", f"out={out}"]) == 0
    assert (out / "table.md").read_bytes() == (ROOT / "reports" / "moe_in_rl" / "table.md").read_bytes()
    assert "frozen, MTP 0.0" in capsys.readouterr().out


def test_runs_that_have_rows_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    shutil.copytree(ROOT / "reports" / "language_consistency", tmp_path / "reports" / "language_consistency")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_loop, "require_same_recipe", lambda recipe, path: None)  # plans every run: seconds
    assert main(["table=language_ablation", "scale=tiny"]) == 0
    said = capsys.readouterr().out
    assert said.count("already in") == 12 and "**supported**" in said  # three seeds without and with, on two tasks


def test_what_was_typed_is_read() -> None:
    words = ["table=x", "scale=tiny", "seeds=3,1", "root=r", "out=o", "init_from=a=f/g=h", "init_from=a=k"]
    asked = parse([*words, "evaluation.samples=4", "evaluation.top_p=0.9", "task=math500", "paths.data=d", "--tasks"])
    assert (asked.table, asked.scale, asked.seeds, asked.root, asked.out) == ("x", "tiny", [3, 1], Path("r"), Path("o"))
    assert asked.init_from == {"a": ["f/g=h", "k"]} and asked.evaluation == {"samples": 4, "top_p": 0.9}
    assert asked.task == ["task=math500", "paths.data=d"] and asked.of_recipe == ["--tasks"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("scale=large", "scale='large' is not allowed: it must be one of tiny, rehearsal"),
        ("seeds=a", "seeds='a' is not allowed: whole numbers, as 0,1,2"),
        ("init_from=folder", "init_from='folder' is not allowed: it must be ARM=FOLDER"),
        ("evaluation.samples=many", "evaluation.samples='many' is not allowed: it must be a number"),
        ("optim.lr=1", "the argument 'optim.lr=1' is not known: the keys are table, scale, "),
        ("tables", "the argument 'tables' is not known"),
    ],
)
def test_what_is_mistyped_is_refused(word: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse([word])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table=gone"], "table='gone' is not allowed: it must be one of "),
        (["table=stages", "scale=rehearsal"], "the rows are those of the report r1_tiny"),
        (["table=moe_in_rl", "init_from=a=b"], "this table has a recipe, which makes its own models"),
        (["table=stages"], "there are no rows in reports/r1_tiny; scale=tiny makes them"),
        (["table=mtp"], "there are no rows in reports/mtp; scale=tiny makes them, some 17 minutes a seed"),
        (
            ["table=r1_zero_curves", "init_from=r1_zero=f"],
            "its numbers are the curves of a training run, which a checkpoint",
        ),
        (
            ["table=fp8_against_bf16", "init_from=fp8=f"],
            "its numbers are the losses of a training run, which a checkpoint",
        ),
        (
            ["table=rl_data", "init_from=questions=f"],
            "its numbers are of the questions of RL, and no model is measured",
        ),
        (["table=sft_data", "init_from=samples=f"], "its numbers are of a data set, and no model is measured"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("arm,seed,folder\nmtp,0,first\n", "its rows of arm mtp are of first; take another out="),
        (
            "arm,seed,settings,folder\nwithout,0,problems=4 samples=2,first\n",
            "its rows were measured with 'problems=4 samples=2', not with 'problems=500 samples=4 last_loss=train/loss[last 50]'",
        ),
        ("arm,seed,measure\nmtp,0,m\n", "its rows are not of checkpoints of one's own; take another out="),
    ],
)
def test_rows_of_another_checkpoint_or_protocol_are_not_added_to(
    rows: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    own = tmp_path / "reports" / "mtp" / "own"
    own.mkdir(parents=True)
    (own / "results.csv").write_text(rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["table=mtp", "init_from=mtp=second"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_rows_that_were_measured_otherwise_are_not_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (tmp_path / "results.csv").write_text("arm,seed,measure,settings\nbase,0,m,problems=9\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["table=maj_pass_at_k", "scale=tiny", f"out={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "its rows were measured with 'problems=9', not with 'problems=" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table=mtp", "--check"], "--check must stand alone"),
        (["--list", "--check"], "--list --check must stand alone"),
        (["table=mtp", "--tasks"], "options are for the table of a report"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words: list[str], message: str, capsys: Captured) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_help_and_no_words(capsys: Captured) -> None:
    assert main(["--help"]) == 0 and main([]) == 2
    assert "init_from=ARM=FOLDER" in capsys.readouterr().out
