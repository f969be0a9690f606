"""GSM8K from small files made here and, where it lies beside the checkout, from the real data set."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from r1_lightning.tasks.gsm8k import MAX_LINE_CHARS, GSM8KTask
from r1_lightning.text.answers import same_answer
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.errors import InvalidInput


def row(question: str, number: int | str) -> dict[str, str]:
    return {"question": question, "answer": f"So 48/2 = <<48/2=24>>24.\nThen <<1+1=2>>more.\n#### {number}"}


TRAIN = [row(f"How many are {number}?", number) for number in range(7)]
TEST = [row(f"How many are {number}?", number) for number in range(100, 103)]


def write(folder: Path, train: list[dict[str, str]] = TRAIN, test: list[dict[str, str]] = TEST) -> str:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def task(tmp_path: Path) -> GSM8KTask:
    return GSM8KTask(write(tmp_path))


def test_a_row_becomes_a_problem(tmp_path: Path) -> None:
    task = GSM8KTask(write(tmp_path, train=[row(" How much? ", "1,600")]))
    problem = task.train_problem(0, 0)
    assert (problem.question, problem.answer, problem.language, problem.level) == ("How much?", "1600", "en", 2)
    assert problem.metadata["steps"] == "So 48/2 = 24.\nThen more."


def test_each_pass_holds_every_row_once_in_another_order(task: GSM8KTask) -> None:
    first = [task.train_problem(5, index).answer for index in range(7)]
    second = [task.train_problem(5, index).answer for index in range(7, 14)]
    assert sorted(first) == sorted(second) == [str(number) for number in range(7)]
    orders = {tuple(task.train_problem(seed, index).answer for index in range(7)) for seed in range(10)}
    assert len(orders) > 5  # 10 draws from 5,040 orders
    assert first == [task.train_problem(5, index).answer for index in range(7)]
    assert any(first != [task.train_problem(5, start + i).answer for i in range(7)] for start in (7, 14, 21))


def test_held_out_problems_are_the_test_file_in_order(task: GSM8KTask) -> None:
    assert [problem.answer for problem in task.held_out_problems(2)] == ["100", "101"]
    assert len(task.held_out_problems(3)) == 3
    assert task.held_out_problems(4) == task.held_out_problems(3)  # all there are
    with pytest.raises(InvalidInput, match="held_out_problems=0"):
        task.held_out_problems(0)


def test_a_test_question_in_the_training_file_is_left_out(tmp_path: Path) -> None:
    leaked = row("How  MANY are 101? ", 101)  # the same words in another spelling
    task = GSM8KTask(write(tmp_path, train=[*TRAIN, leaked]))
    ids = {problem.problem_id for problem in task.held_out_problems(3)}
    assert not ids & {task.train_problem(0, index).problem_id for index in range(50)}
    assert not any("101" in text for text in task.documents(0, 0, 50))
    with pytest.raises(InvalidInput, match="no training question is left"):
        GSM8KTask(write(tmp_path / "all", train=TEST))


def test_documents_have_the_template_or_plain_words_and_no_annotations(task: GSM8KTask) -> None:
    texts = list(task.documents(seed=1, start=0, count=200))
    assert len(texts) == 200
    tagged = [text for text in texts if "<answer>" in text]
    assert 60 < len(tagged) < 140  # about half
    for text in texts:
        assert "<<" not in text and ">>" not in text and "####" not in text
    for text in tagged:
        question, completion = text.rsplit(". Assistant:", 1)
        assert r1_zero_prompt(question.rsplit("User: ", 1)[1]) + completion == text
        assert parse(completion).well_formed
        assert same_answer(parse(completion).answer.strip(), text.split("How many are ")[1].split("?")[0])
    plain = next(text for text in texts if "<answer>" not in text)
    assert plain.startswith("Question: How many are ")
    assert "\nSolution: So 48/2 = 24.\nThen more.\nThe answer is " in plain


def test_documents_are_a_function_of_seed_and_number(task: GSM8KTask) -> None:
    whole = list(task.documents(3, 0, 30))
    assert list(task.documents(3, 0, 10)) + list(task.documents(3, 10, 20)) == whole
    assert list(task.documents(4, 0, 30)) != whole
    assert list(task.documents(3, 0, 0)) == []


def test_the_content_version_follows_the_files_and_not_the_folder(tmp_path: Path) -> None:
    versions = [
        GSM8KTask(write(tmp_path / "a")).content_version,
        GSM8KTask(write(tmp_path / "b")).content_version,
        GSM8KTask(write(tmp_path / "c", train=TRAIN[:-1])).content_version,
        GSM8KTask(write(tmp_path / "d", test=TEST[:-1])).content_version,
    ]
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


GOOD_LINE = json.dumps(TRAIN[0])
BAD_LINES = {
    "not JSON": ("{", "line 2: not valid JSON"),
    "deep": ("[" * 50_000, "line 2: not valid JSON"),
    "a list": ("[1]", "line 2: a JSON object is needed, not list"),
    "no question": ('{"answer": "#### 1"}', "line 2: the field 'question' is missing"),
    "no answer": ('{"question": "q"}', "line 2: the field 'answer' is missing"),
    "number": ('{"question": "q", "answer": 1}', "line 2: answer=1 is not allowed"),
    "null": ('{"question": null, "answer": "#### 1"}', "line 2: question=None is not allowed"),
    "blank": ('{"question": " ", "answer": "#### 1"}', "line 2: question=' ' is not allowed"),
    "no mark": ('{"question": "q", "answer": "1"}', "line 2: answer='1' is not allowed: it must end in '#### '"),
    "no number": ('{"question": "q", "answer": "#### one"}', "line 2: answer='#### one' is not allowed"),
    "surrogate": ('{"question": "\\ud800", "answer": "#### 1"}', "line 2: question=.* valid Unicode"),
    "too long": (" " * MAX_LINE_CHARS + "{}", "line 2: 100002 characters are not allowed"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named_by_file_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    folder = write(tmp_path)
    (tmp_path / "train.jsonl").write_text(f"{GOOD_LINE}\n{line}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=message) as error:
        GSM8KTask(folder)
    assert "train.jsonl" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_missing_empty_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"test\.jsonl is not readable: No such file"):
        GSM8KTask(str(tmp_path / "nowhere"))
    folder = write(tmp_path)
    (tmp_path / "train.jsonl").write_text("\n \n")
    with pytest.raises(InvalidInput, match=r"train\.jsonl is empty"):
        GSM8KTask(folder)
    (tmp_path / "train.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"train\.jsonl: the file is not valid UTF-8"):
        GSM8KTask(folder)


def test_bad_arguments_are_named(task: GSM8KTask) -> None:
    with pytest.raises(InvalidInput, match="index=-1"):
        task.train_problem(0, -1)
    with pytest.raises(InvalidInput, match="start=-1"):
        next(task.documents(0, -1, 1))


def test_the_real_data_set(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "gsm8k"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/gsm8k")
    task = GSM8KTask(str(folder))
    held_out = task.held_out_problems(1319)  # the published sizes: 7,473 for training, 1,319 for the test
    first_pass = {task.train_problem(0, index).problem_id for index in range(7473)}
    assert len(first_pass) == 7473
    assert not first_pass & {problem.problem_id for problem in held_out}
    assert held_out[0].question.startswith("Janet’s ducks lay 16 eggs per day.")
    assert held_out[0].answer == "18"
    for text in islice(task.documents(0, 0, 500), 500):
        assert "<<" not in text
        if "<answer>" in text:
            assert parse(text.rsplit(". Assistant:", 1)[1]).well_formed


def test_a_question_in_chinese_is_asked_in_chinese(tmp_path: Path) -> None:
    asked = [row(f"小明有{number}个苹果，又买了3 kg，一共多少？", number) for number in range(3)]
    task = GSM8KTask(write(tmp_path, asked, TEST))
    assert {task.train_problem(0, number).language for number in range(3)} == {"zh"}
    assert {problem.language for problem in task.held_out_problems(3)} == {"en"}
