"""Data sets as artefacts: parts, damage that is noticed, and no mistaking them for models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.artefacts import data_set, lineage, store
from r1_lightning.artefacts.store import Artefact
from r1_lightning.types.errors import InvalidInput

DIGEST = "0123456789abcdef" * 4
ROWS = [{"question": "问", "completion": " a"}, {"question": "b", "completion": "c"}]


def _make(root: Path, **inputs: Artefact) -> Artefact:
    artefact = store.create(root, "sample", "tiny", "sums", DIGEST)
    for number in range(2):
        data_set.write_lines(data_set.part_path(artefact.folder, number), ROWS)
    store.write_text(artefact.folder / data_set.CARD, "# Data card\n")
    store.write_json(artefact.folder / data_set.COUNTS, {"rows": 4})
    return store.complete(artefact, "c0ffee", {}, inputs, {"sample/rows": 4.0})


def test_a_data_set_reads_back(tmp_path: Path) -> None:
    made = _make(tmp_path)
    assert made == store.open_artefact(made.folder) == store.find(tmp_path, "sample", DIGEST) and made.complete
    names = ["data/part-00000.jsonl", "data/part-00001.jsonl", "counts.json", "data_card.md"]
    assert list(made.files) == names and made.weights_bytes == 0
    assert [list(data_set.read_lines(part)) for part in data_set.parts_of(made.folder)] == [ROWS, ROWS]
    store.verify(made)
    child = _make(tmp_path, general=made)
    assert "└─ general: sample  0123456789" in lineage.render(child)
    assert store.digits_of(made.folder) == store.digits_of(child.folder) == "0123456789" != store.digits_of(tmp_path)


def test_it_is_no_model(tmp_path: Path) -> None:
    made = _make(tmp_path)
    for name in ("weights_path", "tokenizer_folder"):
        with pytest.raises(InvalidInput, match="it holds a data set, and a model is needed"):
            getattr(made, name)


@pytest.mark.parametrize("name", ["data/part-00001.jsonl", "data_card.md", "counts.json"])
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    made = _make(tmp_path)
    whole = (made.folder / name).read_bytes()
    for content, word in ((whole[:-1], "truncated"), (whole + b"\n", "changed"), (b"x" + whole[1:], "damaged")):
        (made.folder / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=f"{name} is {word}"):
            store.verify(made)
    (made.folder / name).unlink()
    with pytest.raises(InvalidInput, match=f"{name} is missing"):
        store.verify(made)


def test_a_part_that_was_not_there_is_noticed(tmp_path: Path) -> None:
    made = _make(tmp_path)
    data_set.write_lines(data_set.part_path(made.folder, 2), ROWS)
    with pytest.raises(InvalidInput, match=r"data/part-00002\.jsonl was not there"):
        store.verify(made)


def test_without_a_part_there_is_no_data_set(tmp_path: Path) -> None:
    artefact = store.create(tmp_path, "sample", "tiny", "sums", DIGEST)
    store.write_json(artefact.folder / data_set.COUNTS, {})
    assert data_set.describe_files(artefact.folder) == {} and data_set.parts_of(artefact.folder) == []
    with pytest.raises(InvalidInput, match="and no data set either"):
        store.complete(artefact, "c", {}, {}, {})


def test_a_kill_while_writing_leaves_no_part(tmp_path: Path) -> None:
    def rows() -> object:
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data_set.write_lines(data_set.part_path(tmp_path, 0), rows())
    assert data_set.parts_of(tmp_path) == [] and list((tmp_path / "data").iterdir()) == []
    (tmp_path / "data" / ".part-00000.jsonl.77.tmp").write_text("half")  # what kill -9 leaves
    (tmp_path / "data" / "part-1.jsonl.bak").write_text("")
    assert data_set.parts_of(tmp_path) == []


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (4, [3, 1]), (6, [3, 3])])
def test_rows_are_written_in_parts_of_a_size(count: int, sizes: list[int], tmp_path: Path) -> None:
    rows = [{"number": number} for number in range(count)]
    data_set.write_parts(tmp_path, iter(rows), rows_per_part=3)
    parts = [list(data_set.read_lines(path)) for path in data_set.parts_of(tmp_path)]
    assert [len(part) for part in parts] == sizes and [row for part in parts for row in part] == rows


def test_parts_are_ordered_by_number(tmp_path: Path) -> None:
    for number in (100_000, 2, 10):
        data_set.write_lines(data_set.part_path(tmp_path, number), [])
    assert [path.name for path in data_set.parts_of(tmp_path)] == [
        "part-00002.jsonl",
        "part-00010.jsonl",
        "part-100000.jsonl",
    ]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (b'{"a"', "not valid JSON"),
        (b"[]\n", "it is cut off, or no JSON object"),
        (b'{"a": 2}', "it is cut off, or no JSON object"),
        (b'{"a": "\xff"}\n', "not valid UTF-8 (byte 7)"),
        (b"[" * 50_000 + b"\n", "not valid JSON"),
        (b'{"a": 2}\r{"a": 3}\n', "not valid JSON"),  # a line ends with \n alone, as it was written
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, second: bytes, said: str) -> None:
    """The line before it is whole, and is read."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + second)
    rows = data_set.read_lines(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(InvalidInput) as refused:
        next(rows)
    assert str(refused.value).startswith(f"{path}, line 2: {said}")


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        data_set.write_lines(tmp_path / name / "x.jsonl", ROWS)
    assert (tmp_path / "a" / "x.jsonl").read_bytes() == (tmp_path / "b" / "x.jsonl").read_bytes()
    assert json.loads((tmp_path / "a" / "x.jsonl").read_text().splitlines()[0]) == ROWS[0]
