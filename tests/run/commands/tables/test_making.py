"""How a table's rows are made: arguments of each run, rows of measures and points, checkpoints of one's own, two real steps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.artefacts.store import Artefact
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.functional.intervals import Interval
from r1_lightning.run.commands import report
from r1_lightning.run.commands.evaluate import EMPTY_THINK, evaluate
from r1_lightning.run.commands.recipe import read
from r1_lightning.run.commands.report_runs import planned_fingerprint, train
from r1_lightning.run.commands.reproduce_table import main
from r1_lightning.run.commands.tables import functions, making
from r1_lightning.run.commands.tables.declared import Table, read_table, tables
from r1_lightning.run.commands.tables.making import arguments_of, columns, overrides, own_checkpoints, own_runs
from r1_lightning.types.errors import InvalidInput
from tests.run.commands.tables.test_declared import MINE, table
from tests.support.hf_folders import dense_folder

EVALUATED = {"m": Measure(0.5, Interval(0.5, 0.25, 0.75)), "other": Measure(1.0, Interval(1.0, math.nan, math.nan))}
METRICS = "step,x,train/loss\n0,1.0,\n1,2.0,3\n2,4.0,3\n3,,3\n"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """MINE, of which nothing is trained or evaluated: `train` and `evaluate` are stand-ins."""
    artefact = Artefact(tmp_path / "made", "grpo", "f" * 64)
    (artefact.folder / "tensorboard").mkdir(parents=True)
    (artefact.folder / "tensorboard" / "metrics.csv").write_text(METRICS, encoding="utf-8")
    monkeypatch.setattr(making, "train", lambda words, root: (artefact, 1.0))
    monkeypatch.setattr(making, "evaluate", lambda *args, **named: ("", EVALUATED))
    return table(tmp_path, evaluation={"problems": 8, "samples": 2})


def test_the_arguments_of_each_run(mine: Table) -> None:
    assert next(arguments_of(mine, [3])) == ["stage=grpo", "optim.lr=1e-3", "seed=3"]
    recipe, runs = own_runs(mine, [0, 1])
    assert runs == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert recipe.overrides("b", 2) == ["stage=pretrain", "seed=2"]
    assert own_runs(mine, [0], rehearsal=True)[0].overrides("b", 2)[-1] == "debug=fast"


def test_a_rehearsal_s_page_says_how_little_was_measured(mine: Table) -> None:
    drawn = own_runs(mine, [0], rehearsal=True)[0].table([])
    assert "- Protocol: a rehearsal with problems=4 samples=2; in full: p" in drawn
    assert "- Budget: a rehearsal of two steps a stage; in full: b" in drawn
    assert "rehearsal" not in own_runs(mine, [0])[0].table([])


def test_a_rehearsal_takes_its_own_number_of_steps() -> None:
    steps = read_table(tables()["reflective_words"])
    assert overrides(steps, "step_40", 0) == ["experiment=r1_zero_tiny", "stage.max_steps=40", "seed=0"]
    assert overrides(steps, "step_40", 0, rehearsal=True) == ["experiment=r1_zero_tiny", "seed=0", "debug=fast"]


def test_a_run_leaves_the_measures_that_the_table_names_and_its_points(mine: Table, tmp_path: Path) -> None:
    recipe, _ = own_runs(mine, [0])
    assert columns(mine) == ("x",) and recipe.curve_fields == ("arm", "seed", "step", "x")
    made = recipe.make("a", 1, root=tmp_path)
    assert [(p["step"], p["x"]) for p in made.points] == [("0", "1.0"), ("1", "2.0"), ("2", "4.0")]
    shown = [(row["measure"], row["value"], row["low"], row["high"]) for row in made.rows]
    assert shown == [("m", "0.5", "0.25", "0.75"), ("n", "3", "", "")]  # (2 + 4) / 2, the last two points
    assert {row["fingerprint"] for row in made.rows} == {"f" * 10}
    assert {row["settings"] for row in made.rows} == {"problems=8 samples=2 n=x[last 2]"}


def test_checkpoints_of_ones_own_are_the_seeds_of_their_arm(mine: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def evaluate(folder: Path, settings: dict[str, Any], prefix: str, task: tuple[str, ...]) -> Any:
        asked.append((folder, settings, task))
        return "", EVALUATED

    monkeypatch.setattr(making, "evaluate", evaluate)
    monkeypatch.setattr(making, "open_folder", opened)
    recipe, runs = own_checkpoints(mine, {"a": ["x", "y"], "b": ["z"]}, {"samples": 4}, ["task=math500"])
    assert runs == [("a", 0, "x"), ("a", 1, "y"), ("b", 0, "z")]
    (row,) = recipe.make("a", 1, "y", root=Path("root")).rows
    assert row["folder"] == "y" and row["fingerprint"] == "0123456789" and row["value"] == "0.5"
    assert asked == [(Path("y"), {"problems": 8, "samples": 4}, ("task=math500",))]
    assert row["settings"] == "problems=8 samples=4 task=math500 n=x[last 2]"
    drawn = recipe.table([])
    assert "- Protocol: measured with problems=8 samples=4 task=math500 n=x[last 2]; the table's own: p" in drawn
    assert "- Budget: checkpoints of one's own; the table's own: b" in drawn
    assert not recipe.is_of_run({}) and "| a | M | 71.0" in recipe.table([{k: str(v) for k, v in row.items()}])


def opened(folder: str | Path) -> Artefact:
    """A stand-in for `open_folder`: the weights of a folder are those of its first letter."""
    return Artefact(Path(folder), "sft", "0123456789abcdef", weights_sha256=Path(folder).name[0])


def test_a_copy_of_a_checkpoint_is_not_another_seed(mine: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "open_folder", opened)
    with pytest.raises(InvalidInput, match="each seed of an arm is another checkpoint"):
        own_checkpoints(mine, {"a": ["x", "xcopy"]}, {}, [])
    own_checkpoints(mine, {"a": ["x"], "b": ["xcopy"]}, {}, [])  # two arms may be of one model


@pytest.mark.parametrize(
    ("changes", "folders", "message"),
    [
        ({}, {"a": ["x", "y", "y/../x"]}, "init_from=a=.* is not allowed: each seed of an arm is another checkpoint"),
        ({}, {"c": ["x"]}, "init_from='c' is not allowed: it must be one of a, b"),
        ({"evaluation": {}}, {"a": ["x"]}, "this table is not measured by an evaluation of models"),
        ({"function": "rl_data"}, {"a": ["x"]}, "this table is not measured by an evaluation of models"),
    ],
)
def test_checkpoints_that_cannot_be_measured_are_refused(
    changes: dict[str, Any], folders: dict[str, list[str]], message: str, mine: Table
) -> None:
    with pytest.raises(InvalidInput, match=message):
        own_checkpoints(replace(mine, **changes), folders, {}, [])


def test_an_unknown_function_is_refused_before_anything_is_trained(mine: Table) -> None:
    mistyped = replace(mine, function="by_levle")
    with pytest.raises(InvalidInput, match=r"mine\.yaml: function='by_levle' is not allowed: it must be one of None, "):
        own_runs(mistyped, [0])
    with pytest.raises(InvalidInput, match=r"mine\.yaml: function='by_levle' is not allowed"):
        own_checkpoints(mistyped, {"a": ["x"]}, {}, [])


def test_the_settings_of_a_row_name_all_that_its_measures_depend_on(mine: Table) -> None:
    longer = replace(mine, function="by_level", task=("task=gsm8k",))
    said = "function=by_level problems=4 samples=2 task=gsm8k n=x[last 2]"
    assert making.settings_of(longer, making.REHEARSED, ()) == said


def test_a_table_that_trains_nothing_is_made_by_its_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "CARD_PROBLEMS", 100)
    monkeypatch.setattr(making, "planned_fingerprint", lambda *words: "f")
    card = read_table(tables()["rl_data"])
    made = own_runs(card, [0])[0].make("questions", 0, root=tmp_path)
    shares = [float(row["value"]) for row in made.rows if str(row["measure"]).startswith("share_")]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5) and not list(tmp_path.iterdir())


OURS = {name: read_table(path) for name, path in tables().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, ours in OURS.items() if ours.report is None])
def test_every_arm_of_every_table_plans_to_a_fingerprint(name: str) -> None:
    arms = list(arguments_of(OURS[name], [0]))
    found = {planned_fingerprint(*words) for words in arms}
    assert len(found) == len(arms)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"), sorted({(str(ours.report), ours.report_words) for ours in OURS.values() if ours.report})
)
def test_every_run_of_a_report_behind_a_table_plans_to_a_fingerprint(name: str, words: tuple[str, ...]) -> None:
    recipe = report.recipe_of(report.load(report.recipes()[name]))
    options = report.parser(name, "", recipe).parse_args([*words, "--seeds", "0"])
    runs = list(recipe.runs(options))
    assert len({planned_fingerprint(*recipe.overrides(*run)) for run in runs}) == len(runs) > 0


@pytest.mark.slow
def test_a_rehearsal_makes_every_arm_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["table=mtp", "scale=rehearsal"]) == 0
    folder = tmp_path / "runs" / "rehearsals" / "mtp"
    rows = read(folder / "results.csv")
    assert {(row["arm"], row["seed"]) for row in rows} == {("without", "0"), ("mtp", "0")}
    assert {row["measure"] for row in rows} == {"last_loss", "pass_at_1_lenient"}  # no pass@4 of two samples
    assert {row["step"] for row in read(folder / "curves.csv")} == {"0", "1"}
    said = capfd.readouterr().out
    assert main(["table=mtp", "scale=rehearsal"]) == 0
    assert "arm without, seed 0: already in" in capfd.readouterr().out and "# Pre-training without" in said
    assert not (tmp_path / "reports").exists()
    folders = sorted(path.parent for path in (tmp_path / "runs" / "tables").glob("*/artefact.json"))
    given = [f"init_from={arm}={folder}" for arm, folder in zip(["mtp", "mtp"], folders, strict=True)]
    few = ["evaluation.problems=4", "evaluation.samples=4"]
    assert main(["table=mtp", *given, *few]) == 0
    own = read(tmp_path / "reports" / "mtp" / "own" / "results.csv")
    assert [(row["arm"], row["seed"], row["folder"]) for row in own if row["measure"] == "pass_at_4"] == [
        ("mtp", str(seed), str(folder)) for seed, folder in enumerate(folders)
    ]
    assert {row["fingerprint"] for row in own} == {folder.name[-10:] for folder in folders}


def test_a_table_of_a_report_measures_checkpoints_as_the_report_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(making, "evaluate", lambda *args, **named: asked.append((args, named)) or ("", EVALUATED))
    monkeypatch.setattr(making, "open_folder", lambda folder: Artefact(folder, "grpo", "0123456789abcdef"))
    recipe, runs = own_checkpoints(OURS["thinking_or_direct"], {"thinking": ["x"], "direct": ["x"]}, {}, [])
    for run in runs:
        recipe.make(*run, root=Path("root"))
    as_in_recipe = {"problems": 1000, "samples": 16}  # PROBLEMS, SAMPLES of reports/r1_zero_tiny/recipe.py
    assert asked == [((Path("x"), as_in_recipe, prefix), {"task": ()}) for prefix in ("", EMPTY_THINK)]


FEW = {"problems": 4, "samples": 2, "max_new_tokens": 4}
TYPED = [f"evaluation.{name}={value}" for name, value in FEW.items()]


@pytest.mark.slow
def test_a_huggingface_folder_fills_a_table_that_is_drawn_from_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    qwen = dense_folder(tmp_path / "qwen", "qwen2", max_position_embeddings=4096)
    arms = [f"init_from={arm}={qwen}" for arm in ("thinking", "direct")]
    assert main(["table=thinking_or_direct", *arms, "task=arithmetic", *TYPED]) == 0
    own = tmp_path / "reports" / "thinking_or_direct" / "own"
    rows = {(row["arm"], row["measure"]): float(row["value"]) for row in read(own / "results.csv")}
    for arm, prefix in (("thinking", ""), ("direct", EMPTY_THINK)):
        expected = evaluate(qwen, FEW, prefix, task=["task=arithmetic"])[1]
        for name in OURS["thinking_or_direct"].measures:
            assert rows[arm, name] == pytest.approx(expected[name].value, rel=1e-5)
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {"thinking_or_direct"}
    assert "measured with max_new_tokens=4 problems=4 samples=2 task=arithmetic" in (own / "table.md").read_text()


@pytest.mark.slow
def test_the_table_of_stages_is_filled_as_a_comparison_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artefact and a HuggingFace folder side by side; on a task without requests their quality is not measured."""
    monkeypatch.chdir(tmp_path)
    qwen = dense_folder(tmp_path / "qwen", "qwen2", max_position_embeddings=4096)
    small = ["model.d_model=32", "model.n_layers=2", "data.rows_per_batch=2", "task.tokenizer.training_documents=200"]
    base = train(["stage=pretrain", "model=tiny", "task=r1_tiny", "debug=fast", *small], tmp_path / "runs")[0].folder
    arms = [f"init_from=base={base}", f"init_from=r1={qwen}"]
    assert main(["table=stages", *arms, *TYPED]) == 0
    rows = read(tmp_path / "reports" / "stages" / "own" / "results.csv")
    asked = set(OURS["stages"].measures) - {"cons_at_8"} | {"pass_at_1_programs", "quality_general", "quality_safety"}
    assert {(row["arm"], row["measure"]) for row in rows} == {(arm, name) for arm in ("base", "r1") for name in asked}
    assert main(["table=stages", arms[1], "task=arithmetic", "out=sums", *TYPED]) == 0
    assert {row["measure"] for row in read(Path("sums", "results.csv"))} == {
        "pass_at_1",
        "pass_at_1_lenient",
        "mixed_language_rate",
    }
    assert (
        "| R1 | general replies | 87.6 (AlpacaEval 2.0 (LC-winrate)) | not measured |"
        in Path("sums", "table.md").read_text()
    )


def test_mine_is_a_whole_table() -> None:
    assert {"title", "paper", "protocol", "budget", "rules", "seeds", "arms", "measures", "claims"} == set(MINE)
