"""The card says what the counts say."""

from __future__ import annotations

from r1_lightning.rollout.rejection_sampling import RejectionSampling
from r1_lightning.rollout.sampled_rows import Counts
from r1_lightning.run.stages.data_card import Origin, render_card, render_table


def _counts() -> dict:
    counts = Counts()
    fates = ("kept", "wrong", "same equations", "kept")
    samples = [{"tokens": 10, "right": fate != "wrong", "fate": fate} for fate in fates]
    problem = {"language": "zh", "level": 3, "metadata": {"domain": "a|b"}}
    counts.add({"index": 0, "problem": problem, "skipped": None, "benchmark": None, "samples": samples})
    counts.add({"index": 1, "problem": problem, "skipped": "contaminated", "benchmark": "math500", "samples": []})
    sources = {"reasoning": {"available": 2, "contaminated": 0, "rows": 2}}
    rows = {"rows": 2, "data_set": {"task": {"sums": 1, "a|b": 1}, "characters": {"64 to 127": 2}}}
    return {**counts.summary(), "sources": sources, **rows, "benchmarks": {"math500": 500, "gpqa": 198}}


ORIGIN = Origin(
    "python scripts/sample.py stage.samples=4", "0123456789", "c0ffee", {"base": "grpo  b\n└─ base: pretrain  c"}
)


def test_the_card_by_hand() -> None:
    card = render_card(_counts(), RejectionSampling(2, 4), ORIGIN)
    for line in (
        "2 rows; 4 samples of 1 problems, of which 3 are right (75.0 %) and 2 were kept.",
        "| reasoning | 2 | 0 | 2 |",
        "| zh | 1 | 4 | 3 | 2 | 75.0 % |",
        "| a\\|b | 1 | 4 | 3 | 2 | 75.0 % |",
        "| same equations | 1 |",
        "| contaminated | 1 |",
        "| math500 | 500 | 1 |",
        "| gpqa | 198 | 0 |",
        "| kept | 10.0 | 10.0 | 10.0 |",
        "| min_edit_distance | 0.05 |",
        "    python scripts/sample.py stage.samples=4",
        "    └─ base: pretrain  c",
    ):
        assert line in card.splitlines(), line
    data_set, pool = card.split("## The data set\n")[1].split("\n## The pool\n")
    assert "| task | rows | share |\n| --- | --- | --- |\n| sums | 1 | 50.0 % |\n| a\\|b | 1 | 50.0 % |\n" in data_set
    assert "| characters | rows | share |\n| --- | --- | --- |\n| 64 to 127 | 2 | 100.0 % |\n" in data_set
    assert "| reasoning | 2 | 0 | 2 |" in data_set and "75.0 %" not in data_set
    assert "### By language\n" in pool and "### Lengths in tokens\n" in pool.split("\n## ")[0]
    assert "Fingerprint 0123456789, commit c0ffee" in card
    assert "No row shares 10 words in a row" in card
    assert "No row shares 13 words in a row" in render_card(
        _counts(), RejectionSampling(2, 4, contamination_ngram=13), ORIGIN
    )


def test_the_table_leaves_out_what_did_not_happen() -> None:
    table = render_table(_counts())
    assert table.splitlines()[0].split() == ["rows", "of", "the", "data", "set", "2"]
    assert "75.0 %" in table and "stray code" not in table and "problems not sampled: contaminated  1" in table
    empty = {**Counts().summary(), "rows": 0}
    assert "share that is right   -" in render_table(empty)
