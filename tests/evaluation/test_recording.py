"""Records of a model whose answers are known: what stands in them, and that a kill loses and doubles nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from r1_lightning.evaluation import records
from r1_lightning.evaluation.protocol import questions_digest
from r1_lightning.evaluation.recording import asked_by, blocks_to_draw, record
from r1_lightning.evaluation.records import SAMPLES, Records
from r1_lightning.types.errors import InvalidInput
from tests.evaluation.test_protocol import PROTOCOL
from tests.evaluation.test_runner import THINKER, backbone_that_says, evaluator

MODEL = backbone_that_says(*THINKER)
ASKED = asked_by(evaluator(samples=4))
PROTOCOL_HERE = replace(PROTOCOL, questions=len(ASKED), questions_sha256=questions_digest(ASKED))


def run(folder: Path, told: list[int] | None = None) -> Records:
    """Evaluate the thinker, four samples for each of three questions."""
    made = evaluator(samples=4, max_rows=8)
    begun = records.begin(folder, PROTOCOL_HERE, asked_by(made))
    return record(made, MODEL, begun, None if told is None else told.append)


def test_records_say_what_the_evaluation_says(tmp_path: Path) -> None:
    told: list[int] = []
    found = run(tmp_path / "new" / "folder", told)
    assert sum(told) == 12 and not found.missing
    assert found.measures() == evaluator(samples=4)(MODEL)
    assert records.read(found.folder) == found and records.check(found.folder) == found.measures()
    completions = evaluator(samples=4).completions(MODEL)
    assert [[found.samples[q, s].completion for s in range(4)] for q in range(3)] == completions
    assert {item.answer for item in found.samples.values()} == {"5", "6"}


def test_a_block_that_lacks_a_sample_is_drawn_as_a_whole(tmp_path: Path) -> None:
    found, made = run(tmp_path), evaluator(samples=4, max_rows=8)  # two questions fill a block of eight rows
    assert blocks_to_draw(made, found) == []
    lacking = replace(found, samples={key: item for key, item in found.samples.items() if key != (1, 2)})
    assert blocks_to_draw(made, lacking) == [range(0, 2)]
    assert blocks_to_draw(made, replace(found, samples={})) == [range(0, 2), range(2, 3)]


def test_a_line_holds_all_of_a_sample(tmp_path: Path) -> None:
    run(tmp_path)
    header, first, *_ = map(json.loads, (tmp_path / SAMPLES).read_text().splitlines())
    assert header["protocol"]["sampling_temperature"] == 0.6 and header["protocol"]["commit"] == "c0ffee"
    answer = "5" if first["accurate"] else "6"
    assert first == {
        "question": 0,
        "sample": 0,
        "id": "p0",
        "prompt_sha256": first["prompt_sha256"],
        "seed": 3,
        "completion": f"<think>a</think><answer>{answer}</answer>",
        "answer": answer,
        "strict": first["accurate"],
        "lenient": first["accurate"],
        "well_formed": True,
        "accurate": first["accurate"],
        "finished": True,
        "tokens": 7,
        "language": 1.0,
        "thinking_words": 0,  # a letter is no word
        "mixed": False,
        "vote": 0,
        "reason": "right" if first["accurate"] else "answered '6', expected '5'",
    }
    question = json.loads((tmp_path / "questions.jsonl").read_text().splitlines()[0])
    assert question["text"] == "1" and question["reference"] == "5" and len(question["prompt_sha256"]) == 64


@pytest.mark.parametrize("lines", [0, 3, 4, 8, 11])
@pytest.mark.parametrize("half", ["", '{"question": 2, "sam'])
def test_a_kill_at_any_line_loses_and_doubles_nothing(tmp_path: Path, lines: int, half: str) -> None:
    expected = run(tmp_path / "whole")
    whole = (tmp_path / "whole" / SAMPLES).read_text().splitlines(keepends=True)
    run(tmp_path / "killed")
    (tmp_path / "killed" / SAMPLES).write_text("".join(whole[: 1 + lines]) + half)
    (tmp_path / "killed" / records.RESULTS).unlink()
    told: list[int] = []
    found = run(tmp_path / "killed", told)
    assert found.samples == expected.samples and records.check(found.folder) == expected.measures()
    assert len((found.folder / SAMPLES).read_text().splitlines()) == 13
    left = 12 if lines < 8 else 4  # the first block is of two questions, and is whole or drawn again
    assert sum(told) == left
    assert run(tmp_path / "killed", told) == found and sum(told) == left


def test_of_another_protocol_nothing_is_added(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / SAMPLES).read_bytes()
    for field, value in (("samples", 5), ("sampling_temperature", 1.0), ("commit", "other")):
        other = PROTOCOL_HERE.__class__(**{**vars(PROTOCOL_HERE), field: value})
        with pytest.raises(
            InvalidInput, match=rf"^{field}={value!r} is not allowed: the records in .* of another protocol"
        ):
            records.begin(tmp_path, other, asked_by(evaluator(samples=4)))
    assert (tmp_path / SAMPLES).read_bytes() == before
