"""One block: draws keyed by the problem's number, verdicts, and what is not sampled at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.rejection_sampling import (
    SAMPLED_ROLLOUT,
    BlockMaker,
    RejectionSampling,
    accuracy_and_form,
)
from r1_lightning.tasks.decontaminate import Decontaminator
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.support.miniature import CharTokenizer, HashReward, Miniature, Sums


class Form:
    name = "format"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(float("-" not in completion.text), "no minus")


def _maker(samples: int = 5, form: Any = None, room: int = 99, **benchmarks: list[str]) -> BlockMaker:
    tokenizer: Any = CharTokenizer()
    settings, leaks = RejectionSampling(20, samples), Decontaminator(benchmarks)
    return BlockMaker(settings, Sums(), Miniature().sampler(), tokenizer, PLAIN, HashReward(), form, leaks, 0, room)


class Silent:
    """A judge that says nothing that can be read."""

    name = "judge"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(0.0, "not judged: no verdict in 1 replies")


FIRST = {str(index): index for index in range(100)}


def test_blocks_and_shares_by_hand() -> None:
    settings = RejectionSampling(10, 4, first_problem=5, problems_per_block=4, shards=2, shard=1)
    assert settings.blocks == [range(5, 9), range(9, 13), range(13, 15)] and list(settings.own_blocks) == [1]
    assert replace(settings, max_steps=2).blocks == [range(5, 9), range(9, 13)]
    shards = [set(replace(settings, shards=4, shard=shard).own_blocks) for shard in range(4)]
    assert shards == [{0}, {1}, {2}, set()], "every block exactly once"


def test_draws_belong_to_the_number_of_the_problem() -> None:
    """The keys are (stage, problem, sample): other blocks, other company, the same completions."""
    asked: list[Any] = []
    maker = _maker()
    generate = maker.generate

    def spy(prompts: Any, copies: int, keys: Any) -> Any:
        asked.append(keys)
        return generate(prompts, copies, keys)

    maker = replace(maker, generate=spy)
    together = maker(range(3, 6), FIRST)
    apart = [record for index in (5, 3, 4) for record in maker(range(index, index + 1), FIRST)]
    assert sorted(apart, key=lambda record: record["index"]) == together
    wanted = rollout_keys(SAMPLED_ROLLOUT, 3, 5)
    wanted[:, 1] += 3
    assert asked[0].equal(wanted)


def test_a_sample_on_which_the_judge_is_silent_is_not_judged_and_not_wrong() -> None:
    record = replace(_maker(), accuracy=Silent())(range(7, 8), FIRST)[0]
    assert {sample["fate"] for sample in record["samples"]} <= {"unfinished", "not judged"}
    assert any(sample["fate"] == "not judged" for sample in record["samples"])


def test_a_record_by_hand() -> None:
    record = _maker()(range(7, 8), FIRST)[0]
    assert record["problem"]["question"] == Sums().train_problem(0, 7).question and record["skipped"] is None
    assert len(record["samples"]) == 5
    for sample in record["samples"]:
        assert ("completion" in sample) == (sample["fate"] == "kept")
        assert sample["right"] or sample["fate"] in ("wrong", "unfinished")


def test_the_form_counts_where_a_reward_judges_it() -> None:
    plain, formed = (_maker(20, form)(range(4), FIRST) for form in (None, Form()))
    fates = [{s["fate"] for record in records for s in record["samples"]} for records in (plain, formed)]
    assert "badly formed" not in fates[0] and "badly formed" in fates[1]


def test_what_is_not_sampled_at_all() -> None:
    question = Sums().train_problem(0, 2).question
    records = _maker(apples=[question])(range(4), {**FIRST, "1": 0})
    assert [record["skipped"] for record in records] == [None, "asked before", "contaminated", None]
    assert records[2]["benchmark"] == "apples" and records[1]["samples"] == records[2]["samples"] == []
    assert [record["samples"] for record in records[::3]] == [
        record["samples"] for record in _maker()(range(4), FIRST)[::3]
    ], "what is left out changes nothing for the others"
    assert {record["skipped"] for record in _maker(room=3)(range(4), FIRST)} == {"prompt too long"}


def test_the_parts_of_a_reward() -> None:
    form = Form()
    assert accuracy_and_form(WeightedSum([HashReward(), form]))[1] is form
    assert accuracy_and_form(WeightedSum([HashReward()]))[1] is None
    with pytest.raises(InvalidInput, match=r"reward\.rewards=\['format'\] is not allowed"):
        accuracy_and_form(WeightedSum([form]))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"problems": 0}, "problems=0"),
        ({"shard": 1}, "shard=1"),
        ({"shares": {"reasoning": -1.0}}, r"shares\.reasoning=-1\.0"),
        ({"sources": {"reasoning": None}}, "take another name"),
    ],
)
def test_bad_settings_are_named(change: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        RejectionSampling(**{"problems": 4, "samples": 2, **change})
