"""The tokenizer: every text survives, what may not merge never does, and HuggingFace reads the same ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from r1_lightning.text.chat_template import R1_ZERO, r1_zero_prompt
from r1_lightning.text.reasoning_format import TAGS
from r1_lightning.text.tokenizer import (
    CONFIG_FILE,
    EOS_TOKEN,
    SPECIAL_TOKENS,
    TOKENIZER_FILE,
    TextTokenizer,
    train_tokenizer,
)
from r1_lightning.types.errors import InvalidInput

VOCAB_SIZE = 295  # 30 merges: fewer than the corpus has, so that the size is reached
N_FIXED = 3 + 4 + 2 + 256  # special tokens, tags, the template's two phrases, bytes


def corpus() -> Iterator[str]:
    for number in range(200):
        prompt = r1_zero_prompt(f"What is {number} + {number}?")
        steps = f"first add the tens: ({number}+{number})={2 * number}; -(-{number})=={number}..."
        steps += f" 所以答案是 {2 * number}。"
        yield f"{prompt} <think> {steps} </think> <answer> {2 * number} </answer>"


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(corpus(), VOCAB_SIZE, R1_ZERO.phrases())


def tokens(tokenizer: TextTokenizer, text: str) -> list[str]:
    return [tokenizer.decode([token_id]) for token_id in tokenizer.encode(text)]


def test_a_calculation_by_hand(tokenizer: TextTokenizer) -> None:
    assert tokens(tokenizer, "12+30=42") == ["1", "2", "+", "3", "0", "=", "4", "2"]
    # Spaces belong to words, never to digits or operators.
    ids = train_tokenizer(corpus(), 400)
    assert tokens(ids, ": What is 12 + 3?") == [":", " What", " is", " ", "1", "2", " ", "+", " ", "3", "?"]


def test_tags_and_template_are_single_tokens(tokenizer: TextTokenizer) -> None:
    for phrase in (*TAGS, *R1_ZERO.phrases()):
        assert len(tokenizer.encode(phrase)) == 1
    # preamble, space, 7, +, 5, ?, suffix
    assert len(tokenizer.encode(r1_zero_prompt("7+5?"))) == 7
    assert tokens(tokenizer, " <think> 5</think>") == [" ", "<think>", " ", "5", "</think>"]


def test_nothing_merges_with_a_digit_an_operator_or_punctuation() -> None:
    tokenizer = train_tokenizer(corpus(), 2_000, R1_ZERO.phrases())  # every merge that the corpus can give
    allowed = {*TAGS, *R1_ZERO.phrases()}
    n_merged = 0
    for token_id in range(tokenizer.vocab_size):
        text = tokenizer.decode([token_id])
        if text in allowed or text in SPECIAL_TOKENS or len(text) < 2 or "\ufffd" in text:
            continue  # U+FFFD: part of one character
        n_merged += 1
        assert text.strip().isalpha(), text
        assert text == text.strip() or text == " " + text.strip(), text
    assert n_merged > 20  # so the loop has looked at something


def test_vocabulary_size_counts_everything(tokenizer: TextTokenizer) -> None:
    assert tokenizer.vocab_size == VOCAB_SIZE
    assert max(max(tokenizer.encode(text)) for text in corpus()) < VOCAB_SIZE
    smallest = train_tokenizer(corpus(), N_FIXED, R1_ZERO.phrases())
    assert smallest.vocab_size == N_FIXED
    assert smallest.decode(smallest.encode("bytes alone: 字")) == "bytes alone: 字"


def test_the_vocabulary_spells_every_id_once(tokenizer: TextTokenizer) -> None:
    vocabulary = tokenizer.vocabulary()
    assert sorted(vocabulary.values()) == list(range(VOCAB_SIZE))
    assert all(tokenizer.token_to_id(token) == token_id for token, token_id in vocabulary.items())


def test_special_tokens_have_their_own_ids_and_vanish_when_skipped(tokenizer: TextTokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)
    ids = [*tokenizer.encode("ab"), tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.decode(ids, skip_special=False) == f"ab{EOS_TOKEN}<｜▁pad▁｜>"
    assert tokenizer.decode_batch([ids, ids[:1]]) == ["ab", "a" if len(ids) > 3 else "ab"]


@given(st.text())
@example("<｜end▁of▁sentence｜>")
@example("  12 +3\n\n\ta\u3000 \r\n")
@example("Ġ é ﷺ \x00 \u200b 👩‍👩‍👧")
@example("<think><think></answer> <answer")
def test_every_text_survives(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} & set(ids)


@given(st.lists(st.text(), max_size=5))
def test_a_batch_is_its_rows(tokenizer: TextTokenizer, texts: list[str]) -> None:
    batch = tokenizer.encode_batch(texts)
    assert batch == [tokenizer.encode(text) for text in texts]
    assert tokenizer.decode_batch(batch) == texts


def test_spelling_the_end_of_sequence_does_not_end_a_document(tokenizer: TextTokenizer) -> None:
    assert tokenizer.eos_id not in tokenizer.encode(f"stop {EOS_TOKEN} here")


def test_training_is_deterministic(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    again = train_tokenizer(corpus(), VOCAB_SIZE, R1_ZERO.phrases())
    for folder, made in (("first", tokenizer), ("second", again)):
        made.save(tmp_path / folder)
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_phrases_do_not_shape_the_merges() -> None:
    with_phrase = train_tokenizer(iter(["qqqq zz zz"] * 50), 3 + 4 + 1 + 256 + 2, phrases=["qqqq"])
    # Without the split, "qq" and "qqqq" would take both merges; so they go to " zz".
    assert tokens(with_phrase, "qqqq zz") == ["qqqq", " zz"]
    assert tokens(with_phrase, "qq") == ["q", "q"]


def test_save_and_load_give_the_same_tokenizer(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    loaded = TextTokenizer.load(tmp_path / "tokenizer")
    texts = [*corpus(), EOS_TOKEN, "新的文字 and new words"]
    assert loaded.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert loaded.vocab_size == tokenizer.vocab_size


def test_transformers_reads_the_same_ids_text_and_template(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*corpus(), "  spaced\n\n out ", "é ﷺ 👩‍👧 新", "<think><answer>"]
    ours = tokenizer.encode_batch(texts)
    assert theirs(texts)["input_ids"] == ours
    assert [theirs.decode(ids) for ids in ours] == texts
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 2)
    messages = [{"role": "user", "content": 'What is "2+3"?'}]
    assert theirs.apply_chat_template(messages, tokenize=False) == r1_zero_prompt('What is "2+3"?')


@pytest.mark.parametrize("missing", [TOKENIZER_FILE, CONFIG_FILE])
def test_a_missing_file_is_named(tokenizer: TextTokenizer, tmp_path: Path, missing: str) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidInput, match=missing) as error:
        TextTokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": "1.0"}'])
def test_a_broken_file_is_named(tokenizer: TextTokenizer, tmp_path: Path, content: bytes) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / TOKENIZER_FILE).write_bytes(content)
    with pytest.raises(InvalidInput, match=TOKENIZER_FILE) as error:
        TextTokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    whole = (tmp_path / TOKENIZER_FILE).read_bytes()
    (tmp_path / TOKENIZER_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match="broken"):
        TextTokenizer.load(tmp_path)


def test_a_tokenizer_without_our_special_tokens_is_refused() -> None:
    with pytest.raises(InvalidInput, match="special tokens"):
        TextTokenizer(Tokenizer(BPE(vocab={"a": 0}, merges=[])))


def test_text_that_is_no_unicode_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidInput, match="Unicode"):
        tokenizer.encode("\ud800")


@pytest.mark.parametrize(
    ("vocab_size", "phrases", "message"),
    [
        (N_FIXED - 1, R1_ZERO.phrases(), f"vocab_size={N_FIXED - 1}"),
        (True, (), "vocab_size=True"),
        (VOCAB_SIZE, ("",), "phrases=''"),
        (VOCAB_SIZE, (EOS_TOKEN,), "special token"),
        (VOCAB_SIZE, ("é",), "phrases='é'"),  # as a byte of the alphabet it would decode to another text
    ],
)
def test_bad_settings_are_named(vocab_size: int, phrases: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        train_tokenizer(corpus(), vocab_size, phrases)


def test_the_saved_config_names_the_special_tokens(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == SPECIAL_TOKENS
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_of_somebody_elses_settings_only_known_ones_are_written_again(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil/x--t.T", None]}}))
    TextTokenizer.load(tmp_path).save(tmp_path / "again")
    assert "auto_map" not in json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
