"""The shape of the source: short files, short functions, a docstring that opens each module, nothing left unfinished.

Each rule runs over the whole checkout, and once over a sample with a planted fault that it has to find.
"""

from __future__ import annotations

import pytest

from tests.architecture import house

CODE = (house.PACKAGE, "scripts", "benchmarks", "reports")


def test_files_have_at_most_300_lines():
    long = [house.name(path) for path in house.python_files(*CODE) if _lines(path) > house.FILE_LINES]
    assert long == []


def test_functions_have_at_most_60_lines():
    found = [
        f"{house.name(path)}: {function}"
        for path in house.python_files(*CODE)
        for function in house.long_functions(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_scripts_have_at_most_40_lines():
    long = [house.name(path) for path in house.python_files("scripts") if _lines(path) > house.SCRIPT_LINES]
    assert long == []


def test_every_module_opens_with_a_docstring():
    bare = [
        house.name(path)
        for path in house.python_files(*CODE, "tests")
        if not house.has_docstring(path.read_text(encoding="utf-8")) and path.read_text(encoding="utf-8").strip()
    ]
    assert bare == []


def test_every_package_says_what_its_layer_is():
    packages = sorted((house.ROOT / house.PACKAGE).rglob("__init__.py"))
    silent = [house.name(path) for path in packages if not house.has_docstring(path.read_text(encoding="utf-8"))]
    folders = {path.parent for path in house.python_files(house.PACKAGE)}
    assert silent == []
    assert folders == {path.parent for path in packages}, "a folder of the package has no __init__.py"


def test_every_test_can_fail():
    found = [
        f"{house.name(path)}: {test}"
        for path in house.python_files("tests")
        for test in house.powerless_tests(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_nothing_reads_unfinished():
    found = [
        f"{house.name(path)}: {line}"
        for path in house.python_files(*CODE, "tests")
        for line in house.unfinished(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_file_names_a_path_of_one_machine():
    parent = f"{house.ROOT.parent}/"
    found = []
    for path in house.text_files():
        text = path.read_text(encoding="utf-8")
        found += [f"{house.name(path)}: {line}" for line in house.machine_paths(text)]
        if len(house.ROOT.parents) > 1 and parent in text:
            found.append(f"{house.name(path)}: the folder above the checkout")
    assert found == []


def test_run_asks_no_target_for_its_class():
    """What a stage, data module, model, sampler or reward is, its class declares (`run/config/declarations.py`)."""
    found = [
        f"{house.name(path)}: {question}"
        for path in house.python_files(f"{house.PACKAGE}/run")
        for question in house.class_questions(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_line_count_counts_a_last_line_without_newline():
    assert [house.line_count(text) for text in ("", "a", "a\n", "a\nb")] == [0, 1, 1, 2]


@pytest.mark.parametrize(("body_lines", "expected"), [(59, []), (60, ["f (61 lines)"])])  # and the line of the `def`
def test_long_functions_finds_one_line_too_many(body_lines, expected):
    assert house.long_functions("def f():\n" + "    x = 1\n" * body_lines) == expected


def test_has_docstring_wants_the_string_first():
    assert house.has_docstring('"""Teaches."""\nx = 1\n')
    assert not house.has_docstring('x = 1\n"""Too late."""\n')


@pytest.mark.parametrize(
    ("body", "can_fail"),
    [
        ("assert x", True),
        ("with pytest.raises(ValueError): f()", True),
        ("torch.testing.assert_close(a, b)", True),
        ("print(x)", False),
        ("x == 1", False),
    ],
)
def test_powerless_tests_finds_the_one_that_cannot_fail(body, can_fail):
    assert house.powerless_tests(f"def test_f():\n    {body}\n") == ([] if can_fail else ["test_f"])


def test_unfinished_finds_the_word():
    assert house.unfinished("x = 1  # TO" + "DO later\ny = 2\n") == ["x = 1  # TO" + "DO later"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("path = '/" + "root/venv'", True),
        ("see /" + "home/someone/x", True),
        ("../shared/data/gsm8k", False),
        ("https://host/" + "data/x", False),
        ("override /data: text", False),
    ],
)
def test_machine_paths_finds_absolute_ones_only(line, found):
    assert bool(house.machine_paths(line)) == found


def _lines(path) -> int:
    return house.line_count(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("x = target is Comparison", True),
        ("x = get_object(node) is not chat.ChatDataModule", True),
        ("x = issubclass(kind, ChatDataModule)", True),
        ("x = value is None or value is True or template is R1 or origin is Literal", False),
        ("x = found is kind and issubclass(given, wanted)", False),
        ("x = isinstance(error, InvalidInput)", False),
    ],
)
def test_class_questions_finds_a_class_and_no_constant(line, is_found):
    assert bool(house.class_questions(line)) == is_found
