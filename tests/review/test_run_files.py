"""Settings and measures of a run: flat, without seed and folders, and small whatever the file holds."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from r1_lightning.review import run_files
from r1_lightning.review.run_files import final_measures, number_of, read_mapping, settings_of


def test_settings_are_flat_and_without_what_decides_no_curve() -> None:
    config = {
        "seed": 3,
        "paths": {"root": "x"},
        "trainer": {"devices": 2},
        "optim": {"_target_": "a.b.AdamW", "lr": 1e-4, "empty": None},
        "stage": {"evaluation": {"problems": 5}, "inputs": {"base": "pretrain"}, "words": ["x", "y"]},
    }
    assert settings_of(config) == {
        "optim._target_": "AdamW",
        "optim.lr": "0.0001",
        "stage.inputs.base": "pretrain",
        "stage.words.0": "x",
        "stage.words.1": "y",
    }
    assert number_of(settings_of(config), "optim.lr") == 1e-4
    assert number_of({"a": "x"}, "a") is None and number_of({}, "a") is None


def test_a_configuration_that_grows_by_aliases_stays_small(tmp_path: Path) -> None:
    """Nine lists of nine aliases each are nine to the ninth leaves."""
    lines = ["model:", "  a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(lines))
    assert len(settings_of(read_mapping(path))) <= run_files.MAX_LEAVES


def test_a_configuration_that_holds_itself(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: &m {inner: *m, d_model: 8}")
    assert settings_of(read_mapping(path))["model.d_model"] == "8"


def test_long_values_are_cut() -> None:
    assert len(settings_of({"task": {"text": "x" * 10_000}})["task.text"]) == run_files.LONGEST


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "!!python/object/apply:os.getcwd []", "a: b: c", "[" * 500_000])
def test_a_file_that_is_no_mapping_counts_as_none(tmp_path: Path, text: str) -> None:
    for name in ("config.yaml", "artefact.json"):
        (tmp_path / name).write_text(text)
        assert read_mapping(tmp_path / name) == {}
    assert read_mapping(tmp_path / "nowhere.yaml") == {}


def test_a_file_that_is_too_large_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "artefact.json").write_text('{"a": 1}')
    assert read_mapping(tmp_path / "artefact.json") == {"a": 1}
    monkeypatch.setattr(run_files, "MAX_BYTES", 7)
    assert read_mapping(tmp_path / "artefact.json") == {}
    (tmp_path / "config.yaml").write_text("a: 1\n" + "#" * (run_files.MAX_YAML_BYTES - 5))
    assert read_mapping(tmp_path / "config.yaml") == {"a": 1}
    (tmp_path / "config.yaml").write_text("a: 1\n" + "#" * (run_files.MAX_YAML_BYTES - 4))
    assert read_mapping(tmp_path / "config.yaml") == {}


def test_final_measures_are_numbers(tmp_path: Path) -> None:
    assert final_measures(tmp_path) == {}
    record = {"metrics": {"eval/x/pass_at_1": 0.5, "none": None, "word": "x", "true": True, "count": 3}}
    (tmp_path / "artefact.json").write_text(json.dumps(record))
    assert final_measures(tmp_path) == {"eval/x/pass_at_1": 0.5, "count": 3.0}
    (tmp_path / "artefact.json").write_text('{"metrics": [1]}')
    assert final_measures(tmp_path) == {}


@pytest.mark.parametrize(
    "value", ["!!bool maybe", "!!int ''", "!!float ''", "!!timestamp x", "0x" + "f" * 20_000, "{<<: {a: 1}}"]
)
def test_a_value_that_no_program_of_ours_writes_is_refused(tmp_path: Path, value: str) -> None:
    """PyYAML raises a KeyError, two IndexErrors and an AttributeError; the hexadecimal number cannot be written in decimals."""
    (tmp_path / "config.yaml").write_text(f"optim: {{lr: {value}}}")
    assert read_mapping(tmp_path / "config.yaml") == {}


def test_merge_keys_do_not_grow(tmp_path: Path) -> None:
    """Nine mappings that each take the one before nine times: PyYAML makes 2 * 9^9 pairs of the last."""
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    assert read_mapping(tmp_path / "config.yaml") == {}


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    (tmp_path / "artefact.json").symlink_to("/dev/zero")
    assert read_mapping(tmp_path / "config.yaml") == {} == read_mapping(tmp_path / "artefact.json")


def test_a_measure_of_400_digits_is_infinite(tmp_path: Path) -> None:
    (tmp_path / "artefact.json").write_text(f'{{"metrics": {{"a": 1{"0" * 400}, "b": -1{"0" * 400}}}}}')
    assert final_measures(tmp_path) == {"a": math.inf, "b": -math.inf}
