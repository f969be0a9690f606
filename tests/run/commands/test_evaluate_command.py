"""The words of `r1 evaluate`, a whole evaluation with its records, and what is read from them without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from r1_lightning.run.commands.evaluate_command import folder_and_task, main
from r1_lightning.types.errors import InvalidInput
from tests.support.hf_folders import dense_folder


def test_a_folder_and_a_task_are_named_in_several_ways(tmp_path: Path) -> None:
    """As the issue of a published checkpoint: model=hf init_from=FOLDER benchmark=gsm8k."""
    folder = tmp_path / "qwen"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    expected = (folder, ["task=gsm8k"])
    assert folder_and_task([str(folder), "task=gsm8k"]) == expected
    assert folder_and_task(["model=hf", f"init_from={folder}", "benchmark=gsm8k"]) == expected
    assert folder_and_task(["benchmark=gsm8k", str(folder)]) == expected
    assert folder_and_task([str(folder)], "gsm8k") == expected
    assert folder_and_task(["model=hf", "init_from=hub:a/b", "~task.x", "+task.y=1"]) == (
        Path("hub:a/b"),
        ["~task.x", "+task.y=1"],
    )
    assert folder_and_task(["runs/lr=3", "paths.data=x"]) == (Path("runs/lr=3"), ["paths.data=x"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"the folder=\[\] is not allowed: name one artefact or checkpoint"),
        (["a", "init_from=b"], r"the folder=\['a', 'b'\] is not allowed"),
        (["model=hf", "init_from=nowhere"], r"model=hf is not allowed: nowhere is no checkpoint"),
    ],
)
def test_without_one_folder_it_ends_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        folder_and_task(words)


ROWS = [{"question": f"What is {n}+1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in range(8)]


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["r1 evaluate", *map(str, words)])
    code = main()
    output = capsys.readouterr()
    return code, output.out + (output.err if code else "")


@pytest.mark.slow
def test_a_checkpoint_on_a_benchmark_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R1's k, temperature and nucleus, a record for each sample, numbers derived again, two models compared, two trainings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    for name, rows in (("train", ROWS[:4]), ("test", ROWS[4:])):
        (tmp_path / "data" / "gsm8k" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = dense_folder(tmp_path / "one", "qwen2"), dense_folder(tmp_path / "two", "llama")
    words = ("benchmark=gsm8k", "paths.data=data", "--max-new-tokens", 3)
    code, text = said(monkeypatch, capsys, "model=hf", f"init_from={one}", *words)
    assert code == 0, text
    assert "one: 4 held-out problems, 4 samples each, 95 % intervals\ngsm8k at temperature 0.6, top-p 0.95" in text
    assert "judge MathReward" in text and "over questions" in text and "truncated" in text
    (folder,) = (tmp_path / "runs" / "evaluations").iterdir()
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 1 + 4 * 4

    code, again = said(monkeypatch, capsys, "--check", folder, "--inspect", "logs/one.json")
    assert code == 0 and "equal to results.json" in again and again.split("\n\n")[0] in text
    assert (
        len(json.loads(Path("logs/one.json").read_text())["samples"]) == 16 and "inspect view --log-dir logs" in again
    )

    code, text = said(monkeypatch, capsys, two, *words, "--out", "mine", "--against", folder)
    assert code == 0 and "pass_at_1 of two minus one, paired over 4 questions" in text
    assert "the smallest difference that would have been seen" in text and "not the same protocol" not in text
    code, text = said(monkeypatch, capsys, two, *words, "--out", "mine", "--samples", 2)
    assert code == 2 and "error: samples=2 is not allowed: the records in mine are of another protocol" in text

    code, text = said(monkeypatch, capsys, "--seeds", folder, "mine")
    assert code == 0 and "over training seeds (Student's t, n = 2)" in text and "\npass_at_1  0." in text

    results = json.loads((folder / "results.json").read_text())
    results["measures"]["pass_at_1"][0] += 0.25
    (folder / "results.json").write_text(json.dumps(results))
    code, text = said(monkeypatch, capsys, "--check", folder)
    assert code == 2 and "error: pass_at_1=" in text and "results.json says" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--check", "RECORDS", "MODEL"), "arguments='words' is not allowed: --check and --seeds read records alone"),
        (("--check", "RECORDS", "--samples", "0"), "arguments='samples' is not allowed"),
        (("--seeds", "RECORDS", "--reward", "math"), "arguments='reward' is not allowed"),
        (("MODEL", "--against", "RECORDS"), "records='RECORDS' is not allowed: it holds no evaluation"),
        (("MODEL", "--inspect", "FOLDER"), "--inspect='FOLDER' is not allowed: it is a folder; name a file"),
    ],
)
def test_options_are_refused_before_anything_is_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    """MODEL is no folder, which would be said next."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    code, text = said(monkeypatch, capsys, *words)
    assert code == 2 and message in text
