"""The evaluator with a backbone whose answers are known: its prompts, its measures, and the table it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.evaluation.kept import Kept
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.runner import EVALUATION_ROLLOUT, EvaluationConfig, Evaluator, render_table
from r1_lightning.functional.intervals import Interval
from r1_lightning.review.evaluation_records import EvaluationRecords
from r1_lightning.review.rollout_records import read_records
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.reasoning_format import TAGS
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import Processes
from r1_lightning.types.text import Problem
from tests.rollout.fakes import MarkovBackbone, keys_of
from tests.support.processes import in_processes
from tests.support.prompts import PlainPrompts

WORDS = [*TAGS, *"0123456789", "a", " ", "?", "!"]
EOS, PAD = len(WORDS), len(WORDS) + 1


class WordTokenizer(PlainPrompts):
    """The tags and single characters, one token each; end and padding have no text."""

    eos_id, pad_id = EOS, PAD

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            token = next(number for number, word in enumerate(WORDS) if text.startswith(word))
            ids.append(token)
            text = text.removeprefix(WORDS[token])
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode_batch(self, batch: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        return ["".join(WORDS[token] for token in ids if token < EOS) for ids in batch]


def backbone_that_says(*steps: tuple[str, str, float]) -> MarkovBackbone:
    """`steps` are (word, next word, share); "." stands for the end. Any other word is followed by the end."""
    table = torch.full((len(WORDS) + 2, len(WORDS) + 2), -1e9)
    table[:, EOS] = -1e8
    for word, following, share in steps:
        column = EOS if following == "." else WORDS.index(following)
        table[WORDS.index(word), column] = torch.tensor(share).log()
    return MarkovBackbone(table)


# After the prompt's "!" the model thinks "a" and answers 5 (three times in four) or 6.
THINKER = (
    ("!", "<think>", 1.0),
    ("<think>", "a", 1.0),
    ("a", "</think>", 1.0),
    ("</think>", "<answer>", 1.0),
    ("<answer>", "5", 0.75),
    ("<answer>", "6", 0.25),
    ("5", "</answer>", 1.0),
    ("6", "</answer>", 1.0),
    ("</answer>", ".", 1.0),
)
PROBLEMS = [Problem("1", "5", "p0"), Problem("2", "5", "p1"), Problem("3", "6", "p2")]


def evaluator(prefix: str = "", **config: object) -> Evaluator:
    settings = EvaluationConfig(**{"samples": 40, "max_new_tokens": 12, **config})
    return Evaluator(PROBLEMS, WordTokenizer(), ChatTemplate("t", "?", "!"), settings, seed=3, forced_prefix=prefix)


def answers() -> list[list[str]]:
    """5 or 6 for each problem and sample: the fifth draw of the row's key decides."""
    uniforms = keyed_uniforms(3, keys_of(3, 40, EVALUATION_ROLLOUT), 12)
    return [["5" if u < 0.75 else "6" for u in row] for row in uniforms[:, 4].view(3, 40).tolist()]


def test_completions_are_those_of_the_keys() -> None:
    """Keys of a rollout number that no training rollout has, one row per problem and sample."""
    completions = evaluator().completions(backbone_that_says(*THINKER))
    expected = [[f"<think>a</think><answer>{answer}</answer>" for answer in row] for row in answers()]
    assert [[completion.text for completion in row] for row in completions] == expected
    assert {completion.n_tokens for row in completions for completion in row} == {7}  # 6 words and the end
    assert all(completion.finished for row in completions for completion in row)


def test_measures_by_count() -> None:
    given = answers()
    right = sum(answer == problem.answer for row, problem in zip(given, PROBLEMS, strict=True) for answer in row)
    assert 0.5 < right / 120 < 0.67  # (0.75 + 0.75 + 0.25) / 3 = 0.583
    measures = evaluator()(backbone_that_says(*THINKER))
    assert measures["pass_at_1"].value == measures["pass_at_1_lenient"].value == pytest.approx(right / 120)
    assert measures["format_rate"].value == 1.0
    assert measures["cons_at_40"].value == pytest.approx(2 / 3)  # most votes are for 5, which the third problem is not
    assert measures["completion_tokens_mean"].value == 7.0


def test_the_same_numbers_for_the_same_model_in_any_waves() -> None:
    model = backbone_that_says(*THINKER)
    expected = evaluator().completions(model)
    done: list[int] = []
    assert evaluator(max_rows=7).completions(model, done.append) == expected
    assert sum(done) == 120 and max(done) <= 7
    other = Evaluator(PROBLEMS, WordTokenizer(), ChatTemplate("t", "?", "!"), evaluator().config, seed=4)
    assert other.completions(model) != expected


def test_a_forced_prefix_is_shown_to_the_model_and_counted_as_its_text() -> None:
    """With the answer block opened for it, the model has nothing to think: it says a number and stops."""
    prefix = " <think></think><answer>"
    completions = evaluator(prefix).completions(backbone_that_says(*THINKER))
    assert {completion.text for row in completions for completion in row} == {
        f"{prefix}5</answer>",
        f"{prefix}6</answer>",
    }
    assert {completion.n_tokens for row in completions for completion in row} == {3}  # what the model itself wrote
    assert evaluator(prefix)(backbone_that_says(*THINKER))["format_rate"].value == 1.0


def test_an_empty_think_of_the_models_own_is_no_form() -> None:
    lazy = [step for step in THINKER if step[0] not in ("<think>", "a")] + [("<think>", "</think>", 1.0)]
    assert evaluator()(backbone_that_says(*lazy))["format_rate"].value == 0.0


def test_the_length_limit_and_the_sampling_fields_are_followed() -> None:
    short = evaluator(max_new_tokens=3).completions(backbone_that_says(*THINKER))
    assert {(c.text, c.n_tokens, c.finished) for row in short for c in row} == {("<think>a</think>", 3, False)}
    sure = evaluator(top_p=0.5).completions(backbone_that_says(*THINKER))
    assert {completion.text[-10:-9] for row in sure for completion in row} == {"5"}  # 0.75 fills the nucleus
    cold = evaluator(sampling_temperature=0.01).completions(backbone_that_says(*THINKER))
    assert cold == sure


def test_the_evaluation_has_keys_of_its_own() -> None:
    """More rollouts than any training run has optimizer steps."""
    assert EVALUATION_ROLLOUT == 2**31
    assert EvaluationConfig().sampling == EvaluationConfig(sampling_temperature=1.0, top_p=1.0).sampling


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("problems", 0),
        ("samples", 0),
        ("samples", "16"),
        ("max_rows", 0),
        ("sampling_temperature", 0.0),
        ("top_p", 2),
        ("max_new_tokens", 0),
    ],
)
def test_bad_fields_are_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=rf"^stage\.evaluation\.{field}={value!r} is not allowed: it must be"):
        EvaluationConfig(**{field: value})


# ------------------------------------------------------------------------------------------------------------------ the table


def measure(value: float, low: float, high: float) -> Measure:
    return Measure(value, Interval(value, low, high))


def test_the_table_by_hand() -> None:
    columns = {
        "base": {"pass_at_1": measure(0.25, 0.2, 0.3), "completion_tokens_mean": measure(30.04, 29.0, 31.06)},
        "trained": {"pass_at_1": measure(0.875, 0.8504, 0.8996), "completion_tokens_mean": measure(8.0, 7.5, 108.25)},
    }
    table, legend = render_table("Held-out problems", columns).split("\n\n")
    assert legend.startswith("pass_at_1: share of samples that are right")
    assert table.split("\n") == [
        "Held-out problems",
        "                        base                  trained",
        "pass_at_1               0.250 [0.200, 0.300]  0.875 [0.850, 0.900]",
        "completion_tokens_mean  30.0 [29.0, 31.1]     8.0 [7.5, 108.2]",
    ]


def test_the_table_of_a_real_evaluation_has_a_line_for_each_measure() -> None:
    measures = evaluator(samples=4)(backbone_that_says(*THINKER))
    table, legend = render_table("t", {"model": measures}).split("\n\n")
    assert [line.split(":")[0] for line in legend.split("\n")] == ["pass_at_1", "language_consistency", "cons_at_"]
    lines = table.split("\n")
    assert [line.split()[0] for line in lines[2:]] == list(measures)
    assert all("[" in line and "]" in line for line in lines[2:])


def _measured(processes: Processes) -> tuple[Any, list[int]]:
    told: list[int] = []
    return replace(evaluator(), processes=processes)(backbone_that_says(*THINKER), told.append), told


def test_several_processes_measure_as_one() -> None:
    """All of them, each with a third of the work or less; the progress of one stands for that of all."""
    ((expected, told),) = in_processes(1, _measured)
    assert sum(told) == 120
    for count in (2, 3):
        found = in_processes(count, _measured)
        assert [measures for measures, _ in found] == [expected] * count
        # Each tells its own rows as those of all: 2 + 1 problems of 40 samples, or 1 + 1 + 1.
        assert [sum(own) for _, own in found] == {2: [160, 80], 3: [120, 120, 120]}[count]


def _written(processes: Processes, folder: Path) -> dict[str, Measure]:
    records = EvaluationRecords()
    records.open(folder, 2, 10**6)
    asking = replace(evaluator(samples=5), processes=processes, kept=Kept(records, 7, "val"))
    return asking(backbone_that_says(*THINKER))


@pytest.mark.parametrize("count", [1, 3])
def test_samples_of_some_problems_are_written_down_and_the_measures_stay(count: int, tmp_path: Path) -> None:
    """Two of three problems, evenly chosen: the first and the second; by the main process, whoever has judged them."""
    measures = in_processes(count, _written, tmp_path)
    assert measures == [evaluator(samples=5)(backbone_that_says(*THINKER))] * count
    found = list(read_records(tmp_path))
    drawn = evaluator(samples=5).completions(backbone_that_says(*THINKER))
    places = [(problem, sample) for problem in (0, 1) for sample in range(5)]
    assert [(record.prompt_index, record.sample) for record in found] == places
    for record in found:
        completion = drawn[record.prompt_index][record.sample]
        assert (record.step, record.source, record.evaluation) == (7, "evaluation", "val")
        assert (record.completion, record.length, record.finished) == (completion.text, completion.n_tokens, True)
        assert record.prompt == f"?{record.question}!" and record.question == str(record.prompt_index + 1)
        right = record.extracted == record.reference == "5"
        assert record.reward == float(right) and record.mixed_language is False
        accuracy, form = record.parts
        assert (accuracy.score, accuracy.reason) == (float(right), "right" if right else "answered '6', expected '5'")
        assert (form.name, form.score, form.reason) == ("format", 1.0, "well formed")


def test_nothing_is_written_before_somebody_asks(tmp_path: Path) -> None:
    closed = replace(evaluator(samples=2), kept=Kept(EvaluationRecords(), 1, "val"))
    assert closed(backbone_that_says(*THINKER)) == evaluator(samples=2)(backbone_that_says(*THINKER))
    assert list(tmp_path.iterdir()) == []
