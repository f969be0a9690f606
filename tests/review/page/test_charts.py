"""Which curves a page shows, and in which order."""

from __future__ import annotations

import math

from r1_lightning.review.bands import Band, Bounds
from r1_lightning.review.page.charts import MOST_CURVES, READ_POINTS, charts, readings, section
from r1_lightning.review.series import Series


def line(*values: float) -> Series:
    return Series(tuple(range(len(values))), values)


def test_the_reward_comes_first_then_the_others_by_name() -> None:
    names = ["format/nested", "eval/arithmetic/pass_at_1", "train/loss", "rollout/reward_mean", "a/b"]
    shown = charts({name: line(0.0, 1.0) for name in names})
    assert [chart.name for chart in shown] == [
        "rollout/reward_mean", "eval/arithmetic/pass_at_1", "train/loss", "a/b", "format/nested",
    ]  # fmt: skip


def test_main_curves_others_and_flat_ones_stand_apart() -> None:
    own = {
        "rollout/reward_mean": line(0.0, 1.0),
        "a/moves": line(1.0, 2.0),
        "b/flat": line(3.0, 3.0),
        "c/banded": line(1.0, 1.0),
    }
    text = section(charts(own, None, Band("x", (0, 1, 2), {"c/banded": Bounds((0, 1), (0.0, 0.0), (2.0, 2.0))})))
    main, _, rest = text.partition("<details>")
    assert "rollout/reward_mean" in main and "c/banded" in main and "a/moves" not in main
    assert "1 more curves" in rest and "1 that never moved" in rest and "<li>b/flat: 3</li>" in rest


def test_a_band_that_is_too_wide_to_tell_is_named_so() -> None:
    name = "rollout/accuracy_mean"
    own = {name: line(0.0, 1.0, 0.5)}
    wide, narrow = (Bounds((0, 1, 2), (low,) * 3, (1.0,) * 3) for low in (0.0, 0.5))
    told = "its band is too wide to tell"
    assert told in section(charts(own, None, Band("x", (0, 1, 2), {name: wide})))
    assert told not in section(charts(own, None, Band("x", (0, 1, 2), {name: narrow})))
    assert told not in section(
        charts(own, None, Band("x", (0, 1, 2), {name: wide}), {name: 1})
    )  # it has left that band


def test_values_for_the_pointer() -> None:
    own = {"rollout/reward_mean": line(0.123456789, math.nan), "flat": line(1.0, 1.0)}
    other = {"rollout/reward_mean": Series((5,), (7.0,))}
    first, second = readings(charts(own, other))
    assert first[0] == [0, 1] and first[1][0] == 0.12346 and math.isnan(first[1][1] or 0) and first[2:] == [[5], [7.0]]
    assert second == []
    (long,) = readings(charts({"a": line(*map(float, range(10 * READ_POINTS)))}))
    assert len(long[0]) == READ_POINTS and long[1][:3] == [0, 10, 20]


def test_a_band_of_means_gets_the_mean_of_the_run() -> None:
    band = Band("x", (0, 1, 2), {"a": Bounds((1, 3), (0.0, 0.0), (9.0, 9.0))}, window=2)
    (chart,) = charts({"a": line(0.0, 2.0, 4.0, 6.0)}, None, band)
    assert chart.averaged == Series((1, 3), (1.0, 5.0))


def test_a_file_of_a_thousand_columns_does_not_fill_the_page() -> None:
    assert len(charts({f"m/{i}": line(0.0, 1.0) for i in range(1000)})) == MOST_CURVES


def test_a_name_is_text() -> None:
    assert "<img" not in section(charts({"<img src=x>": line(0.0, 1.0), "<img>": line(1.0)}))


def test_curves_of_the_other_run_alone_are_named() -> None:
    assert "1 of the other run alone, not drawn</summary><ul><li>a&lt;b</li>" in section([], ["a<b"])
