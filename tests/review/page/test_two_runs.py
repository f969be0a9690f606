"""Two runs: settings that differ, prompts that both answered."""

from __future__ import annotations

from r1_lightning.review.page.rollouts import Numbers
from r1_lightning.review.page.two_runs import answered_by_both, differences, section, settings_table
from tests.support.example_records import example_record


def test_settings_that_differ_without_those_of_the_place() -> None:
    own = {"seed": "0", "optim.lr": "0.1", "paths.root": "a", "old": "1"}
    other = {"seed": "1", "optim.lr": "0.1", "paths.root": "b", "new": "2"}
    rows = differences(own, other)
    assert rows == [("seed", "0", "1"), ("old", "1", "-"), ("new", "-", "2")]
    assert "<tr><td>old</td><td>1</td><td>-</td></tr>" in settings_table(rows)
    assert "the same" in settings_table([])
    assert "<i>" not in settings_table([("<i>", "<i>", "<i>")])


def test_the_newest_answers_to_the_same_prompt_with_the_largest_difference_first() -> None:
    """Prompt 0: 1.0 against 0.5; prompt 1: 0.0 against 2.0, which is more; prompt 2 is of one run only."""
    own = [
        example_record(step, prompt, 0, reward=reward)
        for step, prompt, reward in ((0, 0, 9.0), (4, 0, 1.0), (4, 1, 0.0), (4, 2, 0.0))
    ]
    other = [
        example_record(2, prompt, sample, reward=reward)
        for prompt, sample, reward in ((0, 0, 0.0), (0, 1, 1.0), (1, 0, 2.0))
    ]
    pairs = answered_by_both(own, other)
    assert [(pair.own[0].prompt_index, pair.gain) for pair in pairs] == [(1, -2.0), (0, 0.5)]
    assert [len(pair.other) for pair in pairs] == [1, 2] and pairs[1].own[0].step == 4
    known = Numbers()
    text = section(pairs, 10**9, known)
    assert (
        "2 of 2 prompts" in text
        and text.count("<article") == 5 == len(known.samples)
        and text.count("<details open>") == 2
    )
    assert "0 here, 2 there (-2), rollout: " in text and "1 here, 0.5 there (+0.5), rollout: " in text
    assert "this run after 4 steps: mean reward 1<" in text and "the other after 2 steps: mean reward 0.5<" in text
    assert '<bdi class="code">What is 17+25? (0)</bdi>' in text
    assert ' id="' not in text, "the same sample stands in the browser, too"


def test_room_bounds_the_pairs() -> None:
    records = [example_record(0, prompt, 0) for prompt in range(20)]
    known = Numbers()
    text = section(answered_by_both(records, records), 10_000, known)
    assert len(text) < 11_000 and 0 < text.count("<article") < 40 and text.count("<article") == len(known.samples)


def test_an_evaluation_and_a_rollout_are_not_compared() -> None:
    assert answered_by_both([example_record()], [example_record(source="evaluation")]) == []


def test_no_prompt_in_common_is_said() -> None:
    assert section([], 10_000, Numbers()).startswith("<p>No prompt has records in both runs")
