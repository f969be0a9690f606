"""What is noted of a submission is read again, and a damaged note is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.commands import submissions
from r1_lightning.run.commands.submissions import Attempts, attempts, folder_of, read, read_all, write


def noted(root: Path, name: str = "grpo-0123456789", job: str = "7") -> submissions.Submission:
    folder_of(root, name).mkdir(parents=True, exist_ok=True)
    write(root, name, "grpo", "0123456789", job, ["stage=grpo", "name=a b"])
    found = read(folder_of(root, name))
    assert found is not None
    return found


def test_a_note_is_read_again(tmp_path: Path) -> None:
    found = noted(tmp_path)
    assert (found.name, found.stage, found.digits, found.job) == ("grpo-0123456789", "grpo", "0123456789", "7")
    assert found.words == ("stage=grpo", "name=a b")
    assert read_all(tmp_path) == [found]
    assert noted(tmp_path, job="8").job == "8"  # the same run, submitted again


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 3}', "null"])
def test_a_damaged_note_is_none(tmp_path: Path, text: str) -> None:
    noted(tmp_path)
    (folder_of(tmp_path, "grpo-0123456789") / submissions.SUBMISSION).write_text(text)
    assert read_all(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Attempts()),
        ("7 1 T started n1\n", Attempts(1)),
        ("7 1 T started n1\n7 1 T ended 3\n", Attempts(1, 3)),
        ("7 1 T started n1\n7 1 T requeued\n", Attempts(1, None, True)),
        ("7 1 T started n1\n7 1 T requeued\n7 2 T started n[1-2]\n7 2 T ended 0\n", Attempts(2, 0)),
        ("6 1 T started n1\n6 1 T ended 1\n", Attempts()),  # an earlier job of the same run
        ("6 4 T ended 1\n7 1 T started n1\n", Attempts(1)),
        ("7 x\nnonsense\n7 1 T sta", Attempts(1)),  # half a line
    ],
)
def test_the_last_word_on_an_attempt_counts(tmp_path: Path, text: str, expected: Attempts) -> None:
    submission = noted(tmp_path)
    (folder_of(tmp_path, submission.name) / "attempts.txt").write_text(text)
    assert attempts(tmp_path, submission) == expected


def test_nothing_was_submitted(tmp_path: Path) -> None:
    assert read_all(tmp_path / "none") == [] and attempts(tmp_path, noted(tmp_path)) == Attempts()
