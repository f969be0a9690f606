"""Rows, shares and counts from records, by hand."""

from __future__ import annotations

import pytest

from r1_lightning.rollout.sampled_rows import (
    CHANGED,
    Counts,
    RowCounts,
    chosen,
    in_form,
    rows_of,
    sizes,
    uncontaminated_rows,
)
from r1_lightning.text.reasoning_format import parse_r1
from r1_lightning.types.errors import InvalidInput


def _record(
    index: int, fates: list[str], skipped: str | None = None, benchmark: str | None = None, **problem: object
) -> dict:
    samples = [{"tokens": 10 * (n + 1), "right": fate != "wrong", "fate": fate} for n, fate in enumerate(fates)]
    for number, sample in enumerate(samples):
        if sample["fate"] == "kept":
            sample["completion"] = f" text {number}"
    given = {"question": f"q{index}", "answer": "1", "problem_id": f"p{index}", "language": "en", "level": 2}
    return {
        "index": index,
        "problem": {**given, "metadata": {}, **problem},
        "skipped": skipped,
        "benchmark": benchmark,
        "samples": samples,
    }


def test_rows_by_hand() -> None:
    record = _record(7, ["wrong", "kept", "too near", "kept"], metadata={"domain": "code"})
    rows = list(rows_of(record))
    assert rows[0] == {
        "question": "q7",
        "completion": " text 1",
        "answer": "1",
        "problem_id": "p7",
        "language": "en",
        "domain": "code",
        "level": 2,
        "metadata": {"domain": "code"},
        "source": "reasoning",
        "index": 7,
        "sample": 1,
        "tokens": 20,
    }
    assert [(row["sample"], row["completion"]) for row in rows] == [(1, " text 1"), (3, " text 3")]
    assert next(rows_of(_record(0, ["kept"])))["domain"] == "reasoning"


def test_a_rewritten_row_has_a_summary_for_the_reader() -> None:
    """The words of the summary depend on the row's number alone; what was sampled stays where it is."""
    record = _record(7, ["kept"])
    record["samples"][0]["completion"] = " <think>6+1=7</think><answer>7</answer>"
    (row,) = rows_of(in_form(record, "r1"))
    found = parse_r1(row["completion"])
    assert found.well_formed and (found.think, found.answer) == ("6+1=7", "7")
    assert row["completion"] == next(rows_of(in_form(record, "r1")))["completion"]
    assert next(rows_of(record))["completion"] == " <think>6+1=7</think><answer>7</answer>"
    assert in_form(record, None) == record


def test_a_sample_that_rewriting_would_change_has_a_fate_of_its_own() -> None:
    """Its numbers stay, and so do those of the others: what is rewritten is worded as it would be without it."""
    record = _record(7, ["kept", "wrong", "kept"])
    for number, answer in ((0, "{7"), (2, "7")):
        record["samples"][number]["completion"] = f" <think>6+1=7</think><answer>{answer}</answer>"
    rewritten = in_form(record, "r1")
    assert rewritten["samples"][:2] == [{"tokens": 10, "right": True, "fate": CHANGED}, record["samples"][1]]
    (row,) = rows_of(rewritten)
    assert row["sample"] == 2 and row["completion"] == rewritten["samples"][2]["completion"]
    assert record["samples"][0]["fate"] == "kept", "the record itself stays"
    counts = Counts()
    counts.add(rewritten)
    found = counts.summary()
    assert (found["right"], found["kept"]) == (2, 1) and found["tokens"]["kept"]["mean"] == 30
    assert found["samples_by_fate"][CHANGED] == found["samples_by_fate"]["wrong"] == 1
    assert list(found["samples_by_fate"])[-1] == CHANGED, "it is looked for last"


def test_the_scarcest_source_decides() -> None:
    """600 and 80 with shares 3 : 1: 80 general rows go with 240; 90 and 80 give 90 and 30."""
    assert sizes({"reasoning": 600, "general": 80}, {"reasoning": 3, "general": 1}) == {"reasoning": 240, "general": 80}
    assert sizes({"reasoning": 90, "general": 80}, {"reasoning": 0.75, "general": 0.25}) == {
        "reasoning": 90,
        "general": 30,
    }
    assert sizes({"reasoning": 9, "general": 80}, None) == {"reasoning": 9, "general": 80}
    assert sizes({"reasoning": 9, "general": 80}, {"general": 1.0}) == {"reasoning": 0, "general": 80}
    assert sizes({"reasoning": 10, "general": 10}, {"reasoning": 2, "general": 1}) == {"reasoning": 10, "general": 5}


def test_shares_that_cannot_be_had_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"stage\.shares\.poems=1 is not allowed: the sources are reasoning"):
        sizes({"reasoning": 5}, {"poems": 1})
    for available, shares in (
        ({"reasoning": 0}, None),
        ({"reasoning": 0, "general": 9}, {"reasoning": 1, "general": 1}),
    ):
        with pytest.raises(InvalidInput, match="leaves no row"):
            sizes(available, shares)


def test_a_choice_of_rows_is_keyed() -> None:
    assert chosen("general", 5, 5, 0) == {0, 1, 2, 3, 4}
    taken = chosen("general", 1000, 300, 0)
    assert len(taken) == 300 and taken == chosen("general", 1000, 300, 0) and max(taken) < 1000
    assert taken > chosen("general", 1000, 200, 0), "fewer rows are some of more"
    assert taken != chosen("general", 1000, 300, 1) and taken != chosen("other", 1000, 300, 0)
    assert 100 < sum(number < 500 for number in taken) < 200, "of all parts of the source"


def test_rows_of_benchmarks_are_left_out() -> None:
    given = [
        {"question": "a", "completion": "b"},
        {"question": "leak", "completion": "b"},
        {"question": "a", "completion": "leak"},
    ]
    rows, left_out = uncontaminated_rows("general", given, lambda text: "bench" if text == "leak" else None)
    assert rows == [{"question": "a", "completion": "b", "source": "general"}] and left_out == 2


def test_counts_by_hand() -> None:
    counts = Counts()
    counts.add(_record(0, ["kept", "wrong", "kept", "same equations"]))
    counts.add(_record(1, ["wrong"] * 4, language="zh", level=3))
    counts.add(_record(2, ["kept"] * 4, metadata={"domain": "code"}))
    counts.add(_record(3, [], skipped="contaminated", benchmark="math500"))
    counts.add(_record(4, [], skipped="asked before"))
    found = counts.summary()
    assert {name: found[name] for name in ("problems", "sampled_problems", "samples", "right", "kept")} == {
        "problems": 5,
        "sampled_problems": 3,
        "samples": 12,
        "right": 7,
        "kept": 6,
    }
    assert found["pass_rate"] == 7 / 12 and (found["solved"], found["always"]) == (2, 1)
    assert found["not_sampled"] == {"asked before": 1, "contaminated": 1, "prompt too long": 0}
    assert found["contaminated_by"] == {"math500": 1}
    assert {name: n for name, n in found["samples_by_fate"].items() if n} == {
        "kept": 6,
        "wrong": 5,
        "same equations": 1,
    }
    assert sum(found["samples_by_fate"].values()) == found["samples"]
    assert found["by"]["language"] == {
        "en": {"problems": 2, "samples": 8, "right": 7, "kept": 6, "solved": 2, "pass_rate": 7 / 8},
        "zh": {"problems": 1, "samples": 4, "right": 0, "kept": 0, "solved": 0, "pass_rate": 0.0},
    }
    assert set(found["by"]["domain"]) == {"code", "reasoning"} and set(found["by"]["level"]) == {"2", "3"}
    assert found["tokens"]["kept"] == {"mean": (10 + 30 + 10 + 20 + 30 + 40) / 6, "median": 25, "max": 40}


def test_the_rows_of_a_data_set_by_hand() -> None:
    """Of every source; 63 characters are the longest of their group, 64 the shortest of the next."""
    counts = RowCounts()
    code = {
        "domain": "reasoning",
        "language": "en",
        "level": 10,
        "metadata": {"domain": "reasoning", "task": "programs"},
    }
    rows = [
        {**code, "source": "reasoning", "completion": "c" * 64},
        {**code, "source": "reasoning", "completion": "c" * 63},
        {**code, "source": "reasoning", "completion": "c" * 127, "level": 2, "metadata": {"task": "sums"}},
        {
            "source": "chat",
            "domain": "facts",
            "language": "zh",
            "level": 2,
            "completion": "c",
            "metadata": {"task": [1]},
        },
        {"source": "chat", "completion": "c" * 1_024},  # of a source that says nothing
    ]
    assert list(counts.counted(rows)) == rows
    assert {key: list(groups.items()) for key, groups in counts.summary().items()} == {
        "source": [("chat", 2), ("reasoning", 3)],
        "domain": [("facts", 1), ("not said", 1), ("reasoning", 3)],
        "task": [("not said", 2), ("programs", 2), ("sums", 1)],
        "language": [("en", 3), ("not said", 1), ("zh", 1)],
        "level": [("2", 2), ("10", 2), ("not said", 1)],
        "completion_characters": [("1", 1), ("32 to 63", 1), ("64 to 127", 2), ("1,024 to 2,047", 1)],
    }


def test_what_no_row_says_is_no_group() -> None:
    counts = RowCounts()
    counts.add({"source": "chat", "completion": "", "language": "en"})
    assert counts.summary() == {"source": {"chat": 1}, "language": {"en": 1}, "completion_characters": {"0": 1}}


def test_nothing_counted_has_no_rate() -> None:
    found = Counts().summary()
    assert found["pass_rate"] is None and found["tokens"]["kept"] is None and found["samples"] == 0
