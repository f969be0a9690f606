"""A curve as SVG: where its points lie, gaps, the band, and a drawing that any XML parser reads."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from r1_lightning.review.bands import Bounds
from r1_lightning.review.page.curve import MOST_POINTS, number, svg
from r1_lightning.review.series import Series


def drawn(*arguments: object, **more: object) -> ElementTree.Element:
    return ElementTree.fromstring(svg(*arguments, **more))  # type: ignore[arg-type]


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in element.attrib["points"].split())]


def test_points_of_a_line() -> None:
    """Steps 0..2 on x 44..294; values 0..1 with 5 % of room on y 6..104: 1.05 is 6, -0.05 is 104, so 0 is 99.55, 1 is 10.45."""
    (line,) = drawn("a", Series((0, 1, 2), (0.0, 1.0, 0.5))).findall("polyline")
    assert [place for point in points(line) for place in point] == pytest.approx(
        [44, 99.5, 169, 10.5, 294, 55], abs=0.06
    )


def test_labels_are_the_values_and_steps_that_are_there() -> None:
    labels = [text.text for text in drawn("a", Series((0, 199), (0.25, 1900.0))).findall("text")]
    assert labels == ["1900", "0.25", "0", "199"]


def test_a_value_that_is_not_finite_is_a_gap_and_a_single_one_a_dot() -> None:
    picture = drawn("a", Series(tuple(range(6)), (1.0, 2.0, math.nan, 3.0, math.inf, math.nan)))
    assert [len(points(line)) for line in picture.findall("polyline")] == [2]
    assert len(picture.findall("circle")) == 1


@pytest.mark.parametrize("values", [(), (math.nan,), (0.0,), (5.0, 5.0), (-2.0, -2.0)])
def test_nothing_and_flat_lines_are_drawn_inside(values: tuple[float, ...]) -> None:
    picture = drawn("a", Series(tuple(range(len(values))), values))
    for line in picture.findall("polyline"):
        assert {y for _, y in points(line)} == {55.0}  # in the middle of 6..104


def test_the_band_goes_forward_above_and_back_below_within_the_steps_of_the_run() -> None:
    band = Bounds((0, 1, 2, 3), (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0))
    (area,) = drawn("a", Series((0, 2), (0.5, 0.5)), band=band).findall("polygon")
    assert [x for x, _ in points(area)] == pytest.approx([44, 169, 294, 294, 169, 44])
    assert [y for _, y in points(area)] == pytest.approx([10.5] * 3 + [99.5] * 3, abs=0.06)


def test_two_runs_and_an_averaged_one_are_told_apart() -> None:
    line = Series((0, 1), (0.0, 1.0))
    kinds = [found.attrib["class"] for found in drawn("a", line, other=line, averaged=line).findall("polyline")]
    assert kinds == ["other", "single", "own"]


def test_the_step_at_which_a_curve_leaves_its_band() -> None:
    picture = drawn("a", Series((0, 4), (0.0, 1.0)), left_at=2)
    assert [path.attrib["d"] for path in picture.findall("path")] == ["M44,6V104H294", "M169.0,6V104"]
    assert len(drawn("a", Series((0, 4), (0.0, 1.0)), left_at=5).findall("path")) == 1


def test_a_long_run_is_thinned_and_keeps_its_extremes() -> None:
    values = [0.0] * 100_000
    values[54_321], values[77_777] = 9.0, -9.0
    (line,) = drawn("a", Series(tuple(range(100_000)), tuple(values))).findall("polyline")
    heights = [y for _, y in points(line)]
    assert len(heights) <= MOST_POINTS + 2
    assert (min(heights), max(heights)) == pytest.approx((10.5, 99.5), abs=0.06)
    assert [x for x, _ in points(line)] == sorted(x for x, _ in points(line))


def test_a_name_is_escaped() -> None:
    assert drawn('a"><script>', Series((0,), (1.0,))).attrib["aria-label"] == 'a"><script>'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.69140625, "0.6914"),
        (1e-4, "1e-4"),
        (12345.6, "12346"),
        (999999.4, "999999"),
        (-7.952e-4, "-7.952e-4"),
        (0.001, "0.001"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (1.5e-7, "1.5e-7"),
        (2.5e12, "2.5e12"),
        (1019190.0, "1.019e6"),
        (0.0, "0"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
