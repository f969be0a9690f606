"""Documents speak of what is there: files, options, keys, functions, tests and targets of the Makefile by name."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest

from tests.architecture import documents
from tests.architecture.house import PACKAGE, ROOT

README, GUIDE, INDEX = ROOT / "README.md", ROOT / "docs" / "guide.md", ROOT / "docs" / "paper_index.md"
CONTRIBUTING, ARCHITECTURE = ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"
FOR_READERS = [README, GUIDE, CONTRIBUTING, ARCHITECTURE, ROOT / "CHANGELOG.md"]
FORMS = [*(ROOT / ".github").rglob("*.md")]
REPORTS = [*(ROOT / "reports").rglob("README.md")]


@pytest.mark.parametrize(
    "path",
    [*FOR_READERS, *FORMS, *REPORTS, INDEX, ROOT / "docs" / "models.md"],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_and_files_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    assert documents.broken_links(text, path.parent) == []
    assert documents.missing_files(text) == []


@pytest.mark.parametrize("path", [*FOR_READERS, *FORMS], ids=lambda path: path.name)
def test_what_can_be_typed_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert documents.unknown_options(text) == []
    assert documents.unknown_keys(text) == []
    assert documents.unknown_names(text) == []
    assert documents.unknown_targets(text) == []
    assert documents.unknown_commands(text) == []


@pytest.mark.parametrize("group", ["stage", "experiment"])
def test_the_guide_has_a_line_for_every_stage_and_every_experiment(group):
    first = {name for cells in documents.rows(GUIDE.read_text(encoding="utf-8")) for name in _spans(cells[0])}
    assert sorted({path.stem for path in (ROOT / "configs" / group).glob("*.yaml")} - first) == []


def test_readme_leads_to_every_document():
    linked = {link.partition("#")[0] for link in documents.LINK.findall(README.read_text(encoding="utf-8"))}
    wanted = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - {"docs/models.md"}
    assert sorted((wanted | {"CONTRIBUTING.md", "CHANGELOG.md"}) - linked) == []


def test_readme_or_the_guide_names_every_script():
    text = README.read_text(encoding="utf-8") + GUIDE.read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "scripts").glob("*.py") if f"scripts/{path.name}" not in text] == []


def test_the_guide_names_every_objective_and_is_what_readme_points_to():
    text = GUIDE.read_text(encoding="utf-8")
    options = {path.stem for path in (ROOT / "configs" / "objective").glob("*.yaml")}
    assert sorted(option for option in options if f"`{option}`" not in text and f"objective={option}" not in text) == []
    headings = {f"docs/guide.md#{anchor}" for anchor in documents._anchors(text)}
    linked = {link for link in documents.LINK.findall(README.read_text(encoding="utf-8")) if "guide.md#" in link}
    assert linked <= headings and len(linked) >= 10


def test_the_tables_of_the_guide_name_options():
    text = GUIDE.read_text(encoding="utf-8")
    for heading, columns in (("Objectives", {0: "objective"}), ("Data sets", {0: "task", 3: "reward"})):
        section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
        named = {
            f"{group}={name}"
            for cells in documents.rows(section)
            for column, group in columns.items()
            for name in re.findall(r"`(\w+)`", cells[column].split(":")[0])
        }
        assert len(named) >= 9
        assert documents.unknown_options(" ".join(f"`{option}`" for option in named)) == []


def test_run_holds_its_command_line_and_rooms():
    folder = ROOT / PACKAGE / "run"
    assert sorted(path.name for path in folder.glob("*.py")) == ["__init__.py", "cli.py"]
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert rooms <= _words(folder) and len(rooms) == 7


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (ROOT / PACKAGE / "run").glob("*/__init__.py")))
def test_each_room_of_run_says_what_its_files_are_for(room):
    folder = ROOT / PACKAGE / "run" / room
    assert sorted({path.stem for path in folder.glob("*.py")} - {"__init__"} - _words(folder)) == []


def _words(package):
    return set(re.findall(r"\w+", (package / "__init__.py").read_text(encoding="utf-8")))


def test_functions_and_tests_of_the_index_are_there():
    rows = list(documents.rows(INDEX.read_text(encoding="utf-8")))
    assert len(rows) > 70 and {len(cells) for cells in rows} == {4}
    assert [(cells[0], name) for cells in rows for name in documents.unknown_functions(cells[2])] == []
    assert [(cells[0], name) for cells in rows for name in documents.unknown_tests(cells[3])] == []


def test_the_index_has_one_row_per_rule_and_a_function_in_each():
    rows = list(documents.rows(INDEX.read_text(encoding="utf-8")))
    said = [(cells[0], cells[1]) for cells in rows]
    assert sorted(pair for pair in set(said) if said.count(pair) > 1) == []
    assert [cells[0] for cells in rows if not _spans(cells[2])] == []


def test_commits_that_the_architecture_names_touch_as_many_files_as_it_says():
    said = documents.sizes_of_commits(ARCHITECTURE.read_text(encoding="utf-8"))
    assert len(said) >= 2 and len(said) == ARCHITECTURE.read_text(encoding="utf-8").count("ommit `")
    if _git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("needs the history of a checkout")
    touched = {name: _git("show", "--name-only", "--format=", name).splitlines() for name in said}
    assert {name: len(files) for name, files in touched.items()} == said


@pytest.mark.parametrize(("heading", "contract"), [("The house", "layers"), ("The rooms of `run`", "rooms")])
def test_the_pictures_of_the_architecture_show_the_contracts(heading, contract):
    """Row by row, from the top: what import-linter enforces is what the picture shows."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [item["layers"] for item in contracts if item["id"] == contract]
    section = ARCHITECTURE.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1]
    shown = [re.split(r"\s{3,}", line.strip(" │"))[0] for line in documents.CODE_BLOCK.findall(section)[0].splitlines()]
    rows = [row.replace("│", "|") for row in shown if row and not row.startswith("scripts")]
    assert rows == layers


def test_a_broken_link_is_found():
    text = "[a](README.md), [b](nowhere.md), [c](README.md#two-commands), [d](README.md#three), [e](https://x.org)"
    assert documents.broken_links(text, ROOT) == ["nowhere.md", "README.md#three"]


def test_a_missing_file_is_found():
    text = "`tests/nothing.py`, `configs/model/mine.yaml`, `stages/grpo.py`, `stages/gone.py`, `configs/stage/*.yaml`\n"
    block = (
        "```\npython scripts/train.py and scripts/gone.py\n```\n`rewards/sandbox/sandbox.py`, `rewards/sandbox/gone.py`"
    )
    assert documents.missing_files(text + block) == [
        "r1_lightning/rewards/sandbox/gone.py",
        "r1_lightning/stages/gone.py",
        "scripts/gone.py",
        "tests/nothing.py",
    ]


def test_what_git_ignores_by_name_is_not_missing():
    assert documents.missing_files("`docs/api/index.html`, `docs/apix`") == ["docs/apix"]


def test_a_name_that_its_file_does_not_define_is_found():
    text = (
        "`functional/kl.py:k3`, `functional/kl.py:k4`, `r1_lightning/model/router.py:Router.forward`, `gone/kl.py:k3`"
    )
    tests = "`tests/conftest.py::repo_root`, `pytest -n 0 tests/conftest.py::gone`"
    assert documents.unknown_names(text + tests) == ["functional/kl.py:k4", "gone/kl.py:k3", "tests/conftest.py:gone"]


def test_a_target_that_the_makefile_does_not_have_is_found():
    assert documents.unknown_targets("`make checks`, `make peace`, make love") == ["peace"]


def test_a_command_that_is_not_there_is_found():
    text = (
        "`r1 train stage=grpo`, `r1 evalaute FOLDER`, `r1 --help`, `r1 COMMAND`\n```\nr1 runs\nr1 list\nr1 = 2\n```\n"
    )
    assert documents.unknown_commands(text) == ["evalaute", "list"]


def test_an_option_and_a_key_that_are_not_there_are_found():
    text = "`stage=grpo`, `stage=gropo`, `reward=mine`, `model=NAME`"
    text += "`rollout.group_size=8`, `rollout.groupsize=8`, `+data.x=1`"
    assert documents.unknown_options(text) == ["stage=gropo"]
    assert documents.unknown_keys(text) == ["rollout.groupsize"]


def test_a_function_and_a_test_that_are_not_there_are_found():
    text = "`functional.kl`, `functional.kl.gone`, `model.router.Router.forward`, `gate_weights`, `gone`"
    assert documents.unknown_functions(text) == ["functional.kl.gone", "gone"]
    assert documents.unknown_functions("`model.router.Router.backward`") == ["model.router.Router.backward"]
    text = "`tests/conftest.py`, `tests/conftest.py::repo_root`, `::gone`, `tests/gone.py`"
    assert documents.unknown_tests(text) == ["::gone", "tests/gone.py"]


def _git(*arguments):
    """What git prints, without the last line break; nothing where it fails or is not there."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _spans(cell):
    return documents.CODE_SPAN.findall(cell)
