"""What a table's file may say: every file of ours reads, and what is mistyped is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1_lightning.run.commands.report import recipes
from r1_lightning.run.commands.tables.declared import Table, read_table, tables
from r1_lightning.run.commands.tables.values import Cell
from r1_lightning.types.errors import InvalidInput
from tests.architecture.house import ROOT

MINE: dict[str, Any] = {
    "title": "Mine",
    "paper": {
        "source": "a paper",
        "file": "r1v1_table2_r1zero_vs_o1",
        "models_in": "model",
        "also": ["OpenAI-o1-mini"],
    },
    "protocol": "p",
    "budget": "b",
    "rules": "before",
    "seeds": [0, 1, 2],
    "arms": {"a": {"words": "stage=grpo optim.lr=1e-3", "paper": "DeepSeek-R1-Zero"}, "b": {"words": "stage=pretrain"}},
    "measures": {"m": {"label": "M", "paper": "aime2024_pass1"}, "n": {"points": {"column": "x", "last": 2}}},
    "claims": [{"says": "s", "where": "w", "rule": {"kind": "above", "arm": "a", "than": "b", "measure": "m"}}],
}


def table(folder: Path, **changes: Any) -> Table:
    """MINE with changes, read from a file."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINE, **changes}), encoding="utf-8")
    return read_table(path)


def test_a_table_is_what_its_file_says(tmp_path: Path) -> None:
    mine = table(tmp_path)
    assert (mine.id, mine.title, mine.seeds, list(mine.arms)) == ("mine", "Mine", (0, 1, 2), ["a", "b"])
    assert mine.arms["a"].words == ("stage=grpo", "optim.lr=1e-3")
    assert mine.paper.cell(mine.arms["a"].paper, mine.measures["m"].paper) == "71.0"
    assert mine.paper.cell(None, "aime2024_pass1") == mine.paper.cell("DeepSeek-R1-Zero", None) == ""


def test_values_of_its_own_rows(tmp_path: Path) -> None:
    rows = [{"arm": "a", "seed": "1", "measure": name, "value": "0.5", "low": "0", "high": "1"} for name in ("m", "n")]
    values = table(tmp_path).values(rows, [])
    assert values["a", "m"] == {"1": Cell(0.5, 0.0, 1.0)} == values["a", "n"]  # n was points, which became a row
    assert values["b", "m"] == {}


def test_values_of_a_report_are_found_by_the_filters(tmp_path: Path) -> None:
    arms = {"a": {"rows": {"model": "x"}, "points": {"stage": "s"}}, "b": {"rows": {"weight": 0.0}}}
    measures = {"m": {"rows": {"measure": "loss", "step": 250}}, "n": {"points": {"column": "x", "first": 1}}}
    mine = table(tmp_path, report="r1_tiny", arms=arms, measures=measures)
    rows = [
        {"seed": "0", "model": "x", "measure": "loss", "step": "250", "value": "2"},
        {"seed": "0", "weight": "0.0", "measure": "loss", "step": "250", "value": "3"},
        {"seed": "0", "model": "x", "measure": "loss", "step": "0", "value": "9"},
    ]
    points = [{"seed": "0", "stage": "s", "step": "1", "x": "4"}, {"seed": "0", "stage": "t", "step": "1", "x": "8"}]
    values = mine.values(rows, points)
    assert [values[key]["0"].value for key in (("a", "m"), ("b", "m"), ("a", "n"))] == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("path", tables().values(), ids=lambda path: path.stem)
def test_every_table_of_ours_reads(path: Path) -> None:
    """The papers' cells among it; a table of a report names one, and every claim has three seeds to be told by."""
    ours = read_table(path)
    assert ours.report is None or ours.report in recipes()
    assert len(ours.seeds) >= 3 and (ours.report or ours.evaluation or ours.function)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert bool(ours.evaluation) != bool(ours.no_checkpoint)  # checkpoints of one's own fill it, or it says why not


@pytest.mark.parametrize("path", tables().values(), ids=lambda path: path.stem)
def test_a_vote_is_compared_with_answers_in_any_form(path: Path) -> None:
    """cons@k counts answers in any form, pass@1 those in the form asked for: their difference is not the vote's alone."""
    for claim in read_table(path).claims:
        named = {str((claim.rule or {}).get(key)) for key in ("start", "end", "measure", "than_measure")}
        assert not (any(name.startswith("cons_at_") for name in named) and "pass_at_1" in named), claim.says


def test_the_guide_s_table_of_one_s_own_reads(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(title: .*?)^```", guide, re.M | re.S)
    path = tmp_path / "mine.yaml"
    path.write_text(example, encoding="utf-8")
    assert list(read_table(path).arms) == ["usual", "higher"] and read_table(path).measures["reward_end"].points


def test_there_are_the_tables_that_were_asked_for() -> None:
    assert len(tables()) >= 14 and not set(tables()) & set(recipes())


def test_a_table_of_ones_own_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs" / "table"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("")
    (folder / "My-Table.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert tables()["mine"] == folder / "mine.yaml" and "My-Table" not in tables() and "stages" in tables()


RULE = {"kind": "above", "arm": "a", "than": "b", "measure": "m"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, r"mine.yaml=\['titel'\] is not allowed: its keys are title, paper, "),
        ({"rules": "later"}, "rules='later' is not allowed: it must be one of before, after"),
        ({"seeds": [-1]}, "seeds=-1 is not allowed"),
        ({"claims": []}, r"claims=\[\] is not allowed: a table has at least one"),
        ({"claims": [{"says": "s", "where": "w"}]}, "must have a rule, or not_measured: REASON"),
        ({"claims": [{"says": "s", "where": "w", "rule": {**RULE, "than": "c"}}]}, "than='c' is not allowed"),
        ({"arms": {**MINE["arms"], "a": {"rows": {"model": "x"}}}}, "an arm has words, or the table a report"),
        ({"report": "r1_tiny"}, "an arm has words, or the table a report"),
        ({"arms": {**MINE["arms"], "a": {"words": "x=1", "rows": {}}}}, "rows and points are for rows of a report"),
        ({"arms": {**MINE["arms"], "a": {"words": "x=1", "forced_prefix": "y"}}}, "forced_prefix='y' is not allowed"),
        ({"arms": {**MINE["arms"], "a": {"words": "x=1", "paper": "R2"}}}, "no row has model='R2'"),
        ({"measures": {"m": {"points": {"column": "x"}}}}, "it must have `first` or `last`"),
        ({"paper": {"source": "s", "file": "gone", "models_in": "m"}}, "paper.file='gone' is not allowed"),
        ({"paper": {"source": "s", "file": "gone"}}, "it must have models_in or quantities_in"),
        ({"seeds": 3}, "seeds=3 is not allowed: it must be a list"),
        ({"claims": 5}, "claims=5 is not allowed: it must be a list"),
        ({"claims": [{"says": "s", "where": "w", "rule": 5}]}, "rule=5 is not allowed: it must be a mapping"),
        ({"title": [1]}, r"title=\[1\] is not allowed: it must be text"),
        ({"arms": {"a": {"words": "x=1", "label": 5}}}, "label=5 is not allowed: it must be text"),
        ({"measures": {"m": {"digits": "x"}}}, "digits='x' is not allowed"),
        ({"measures": {"m": {"rows": 5}}}, "rows=5 is not allowed: it must be a mapping"),
        ({"measures": {"m": {"points": {"column": "x", "last": 0}}}}, "points=0 is not allowed"),
        ({"paper": {"source": "s", "also": 5}}, "also=5 is not allowed: it must be a list"),
        ({"paper": {"source": "s", "file": "r1v1_table2_r1zero_vs_o1", "models_in": [1]}}, "it must be text"),
        ({"arms": ["a"]}, "arms=.* is not allowed: it must be a mapping"),
    ],
)
def test_what_is_mistyped_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message):
        table(tmp_path, **changes)


@pytest.mark.parametrize("text", ["", "- a", "a: ["])
def test_a_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"mine\.yaml"):
        read_table(path)
