"""Token ids on disk: the same as those in memory, made again where damaged, and never read as something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from r1_lightning.rollout import token_cache
from r1_lightning.rollout.chat_rows import ChatRows, chat_rows
from r1_lightning.rollout.token_cache import COLUMNS, TokenCache, digest_of, table_of
from r1_lightning.text.chat_template import R1
from r1_lightning.text.tokenizer import TextTokenizer, train_tokenizer
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import ChatExample


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(iter(["the sum is five"] * 20), 300, R1.phrases())


EXAMPLES = [
    ChatExample("1+1?", "<think>a</think> 2", "x, line 1", {"domain": "math"}),
    ChatExample("Who?", "Ann", "x, line 2", {"domain": "facts", "system": "Be brief."}, (("Hi", "Hello"),)),
    ChatExample("2+2?", "<think>the sum</think> 4", "x, line 3", {"domain": "math"}),
    ChatExample("q", "", "x, line 4"),
]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "DOCUMENTS_PER_CALL", 3)  # so that four examples take two


@pytest.mark.usefixtures("small_blocks")
def test_what_is_kept_is_what_fine_tuning_reads(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    expected = ChatRows(chat_rows([(example, example.completion) for example in EXAMPLES], tokenizer, R1))
    cache = TokenCache(tmp_path / "cache")
    path = cache.path("rows", "reader")
    assert cache.read(path, tokenizer.vocab_size) is None and not cache.was_read("rows")
    cache.write(path, iter(EXAMPLES), tokenizer, R1, lambda: "read as ours (4)")
    found = cache.read(path, tokenizer.vocab_size)
    assert found is not None and cache.was_read("rows") and not cache.was_read("other rows")
    for table in (found, table_of(EXAMPLES, tokenizer, R1)):
        rows = table.rows
        assert [rows[number] for number in range(4)] == [expected[number] for number in range(4)]
        assert (rows.tokens, rows.prompt_tokens) == (expected.tokens, expected.prompt_tokens)
        assert table.lengths.tolist() == [len(expected[number]) for number in range(4)]
        assert table.columns["formed"].tolist() == [1, 0, 1, 0] and table.columns["system"].tolist() == [0, 1, 0, 0]
        assert table.columns["domain"].tolist() == [0, 1, 0, -1] and list(table.domains) == ["math", "facts"]
    assert found.reading == "read as ours (4)"
    assert sorted(file.name for file in path.iterdir()) == sorted([*COLUMNS, "about.json"])
    assert isinstance(found.columns["ids"], np.memmap)  # not in memory


def test_some_rows_of_a_table(tokenizer: TextTokenizer) -> None:
    table = table_of(EXAMPLES, tokenizer, R1)
    rows = table.rows.only(np.array([3, 1]))
    assert len(rows) == 2 and [rows[0], rows[1]] == [table.rows[3], table.rows[1]]
    assert rows.tokens == table.lengths[[1, 3]].sum() and rows.prompt_tokens == len(rows[0].prompt) + len(
        rows[1].prompt
    )
    assert rows.only(np.array([1]))[0] == table.rows[1]


def cut(path: Path, name: str) -> None:
    (path / name).write_bytes((path / name).read_bytes()[:-8])


def overwritten(path: Path, name: str, number: int, dtype: str) -> None:
    values = np.fromfile(path / name, dtype)
    values[0] = number
    values.tofile(path / name)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "ids cut": lambda path: cut(path, "ids"),
    "ends cut": lambda path: cut(path, "ends"),
    "a column gone": lambda path: (path / "formed").unlink(),
    "an empty column": lambda path: (path / "system").write_bytes(b""),
    "about gone": lambda path: (path / "about.json").unlink(),
    "about of another kind": lambda path: (path / "about.json").write_text("[]"),
    "about without sizes": lambda path: (path / "about.json").write_text('{"domains": [], "reading": ""}'),
    "an id too large": lambda path: overwritten(path, "ids", 10_000, "<i4"),
    "a negative id": lambda path: overwritten(path, "ids", -1, "<i4"),
    "an end before its prompt's": lambda path: overwritten(path, "ends", 0, "<i8"),
    "a prompt's end beyond its row": lambda path: overwritten(path, "prompt_ends", 10_000, "<i8"),
    "rows that do not end with the ids": lambda path: (path / "ids").write_bytes(
        (path / "ids").read_bytes() + b"\0" * 4
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_table_is_made_again(
    tmp_path: Path, tokenizer: TextTokenizer, damage: Callable[[Path], object]
) -> None:
    cache = TokenCache(tmp_path)
    path = cache.path("rows", "reader")
    cache.write(path, EXAMPLES, tokenizer, R1)
    damage(path)
    assert cache.read(path, tokenizer.vocab_size) is None
    cache.write(path, EXAMPLES, tokenizer, R1)
    found = cache.read(path, tokenizer.vocab_size)
    assert found is not None and found.rows[0] == table_of(EXAMPLES, tokenizer, R1).rows[0]


def test_what_breaks_off_leaves_nothing(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    def broken() -> Iterator[ChatExample]:
        yield from EXAMPLES
        raise InvalidInput("x, line 5: broken")

    cache = TokenCache(tmp_path / "cache")
    with pytest.raises(InvalidInput, match="line 5"):
        cache.write(cache.path("rows", "reader"), broken(), tokenizer, R1)
    assert list(cache.folder.iterdir()) == [] and not cache.was_read("rows")


def test_names_depend_on_rows_and_reader(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    cache = TokenCache(tmp_path)
    names = {cache.path(source, reader).name for source in ("a", "b") for reader in ("c", "d")}
    assert len(names) == 4 and digest_of("ab", "c") != digest_of("a", "bc")
    other = train_tokenizer(iter(["the sum is six"] * 20), 300, R1.phrases())
    same = train_tokenizer(iter(["the sum is five"] * 20), 300, R1.phrases())
    assert tokenizer.digest() == same.digest() != other.digest()


def test_about_is_plain_json(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    cache = TokenCache(tmp_path)
    cache.write(cache.path("a", "b"), EXAMPLES, tokenizer, R1)
    about = json.loads((cache.path("a", "b") / "about.json").read_text())
    n_ids = table_of(EXAMPLES, tokenizer, R1).rows.tokens
    assert about["sizes"] == {"ids": n_ids, **{name: 4 for name in COLUMNS if name != "ids"}}
