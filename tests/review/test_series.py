"""metrics.csv as a stranger may have written it: rows twice, lines cut off, words among numbers, a file without end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from r1_lightning.review import series as module
from r1_lightning.review.series import Series, mean_of, read_series, rolling
from r1_lightning.types.errors import InvalidInput


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "tensorboard").mkdir()
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "tensorboard" / "metrics.csv").write_bytes(data)
    return folder


def test_each_column_is_a_curve_where_it_was_logged(tmp_path: Path) -> None:
    found = read_series(written(tmp_path, "epoch,step,train/loss,val/x/pass_at_1\n0,0,2.5,\n0,1,2.25,0.5\n"))
    assert found == {"train/loss": Series((0, 1), (2.5, 2.25)), "val/x/pass_at_1": Series((1,), (0.5,))}


def test_steps_taken_again_replace_those_before(tmp_path: Path) -> None:
    """Steps 0, 1, 2, 3, and again from 2: what the first process logged of 2 and 3 goes, step 3 is not there any more."""
    found = read_series(written(tmp_path, "step,a\n0,0\n1,1\n2,2\n3,3\n2,20\n"))
    assert found["a"] == Series((0, 1, 2), (0.0, 1.0, 20.0))


def test_lines_that_are_no_rows_are_left_out(tmp_path: Path) -> None:
    text = "step,a,b\n0,1,2\n1,1\n2,1,2,3\nx,1,2\n-1,1,2\n٣,1,2\n1e3,1,2\n,1,2\n9999999999999,1,2\n3,word,4\n4,5"
    assert read_series(written(tmp_path, text)) == {"a": Series((0,), (1.0,)), "b": Series((0, 3), (2.0, 4.0))}


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    values = read_series(written(tmp_path, "step,a\n0,nan\n1,-inf\n2,1e999\n"))["a"].values
    assert math.isnan(values[0]) and values[1:] == (-math.inf, math.inf)


def test_names_that_could_be_markup_are_left_out(tmp_path: Path) -> None:
    text = 'step,<script>alert(1)</script>,"a\nb",=cmd(),ok/name_1\n0,1,2,3,4\n'
    assert read_series(written(tmp_path, text)) == {"ok/name_1": Series((0,), (4.0,))}


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert read_series(written(tmp_path, b"step,a\n0,1\n1,\xff\xfe\n2,\x003\n")) == {"a": Series((0, 2), (1.0, 3.0))}


def test_nothing_is_there(tmp_path: Path) -> None:
    assert read_series(tmp_path) == {}
    assert read_series(written(tmp_path, "")) == {}
    assert read_series(tmp_path / "nowhere") == {}


def test_a_file_beyond_all_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, "step," + ",".join(f"m{n}" for n in range(1000)) + "\n")
    with pytest.raises(InvalidInput, match="1001 columns, which is not allowed: at most 1000"):
        read_series(folder)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(InvalidInput, match="bytes, which is not allowed: at most 10 are read"):
        read_series(folder)


def test_a_field_without_end_is_one_line_of_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="it is no table of metrics"):
        read_series(written(tmp_path, 'step,a\n0,"' + "x" * 200_000))


def test_means_of_windows_stand_at_the_last_step_of_each() -> None:
    """Steps 0..4 in twos: (0 + 1) / 2 at step 1, (2 + 3) / 2 at step 3; step 4 has no whole window."""
    curve = Series((0, 1, 2, 3, 4), (0.0, 1.0, 2.0, 3.0, 4.0))
    assert curve.averaged(2) == Series((1, 3), (0.5, 2.5))
    assert curve.averaged(1) is curve
    assert Series((0, 4), (1.0, 2.0)).averaged(2) == Series((1,), (1.0,))  # logged at every fourth step
    assert Series((), ()).averaged(3) == Series((), ())


def test_rolling_means_and_medians() -> None:
    assert rolling([1, 2, 6, 3], 3) == [3.0, 11 / 3]
    assert rolling([1, 2, 6, 3], 3, middle=True) == [2, 3]
    assert rolling([1, 2], 3) == []
    assert math.isnan(rolling([1, math.nan, 2], 2)[0])


def test_a_sum_that_no_float_holds_is_no_mean() -> None:
    """Twice 1.7e308 is beyond the largest float, and inf - inf is none; both end the program where `fmean` is asked alone."""
    assert math.isnan(mean_of([1.7e308] * 2)) and math.isnan(mean_of([math.inf, -math.inf])) and mean_of([1, 2]) == 1.5
    assert math.isnan(rolling([1.7e308] * 2, 2)[0])
    assert math.isnan(Series((0, 1), (math.inf, -math.inf)).averaged(2).values[0])


def test_a_table_of_many_short_fields_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MB of zeros between commas would take 18 GB of memory."""
    monkeypatch.setattr(module, "MAX_FIELDS", 5)
    with pytest.raises(InvalidInput, match="more than 5 fields"):
        read_series(written(tmp_path, "step,a\n0,1\n1,1\n2,1\n"))
