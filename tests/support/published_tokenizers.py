"""Tokenizers as others publish them, in small: SentencePiece's two kinds (BPE as in Llama 2, Mistral and Gemma; Unigram), and
byte-level ones with control tokens (GPT-2, Qwen, Llama 3)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from r1_lightning.text.tokenizer import CONFIG_FILE, TOKENIZER_FILE

LEGACY, METASPACE, EVERY_PIECE, BYTE_LEVEL, PREFIXED_BYTES = "llama2", "mistral", "always", "byte_level", "prefixed"
UNIGRAM = "unigram"
SENTENCE_PIECE = (LEGACY, METASPACE, EVERY_PIECE, UNIGRAM)
KINDS = (*SENTENCE_PIECE, BYTE_LEVEL, PREFIXED_BYTES)
CONTROL = ("<|im_start|>", "<|im_end|>", "<｜User｜>", "<｜Assistant｜>", "[INST]", "[/INST]")
BOS, EOS = "<s>", "</s>"


def corpus() -> list[str]:
    words = (
        "what is the sum of two and three so we add them first then the answer must be five user assistant hello world"
    )
    return [f"{words} {n}+{n}={2 * n}. {words.title()}\n  indented {words[n % 40 :]}" for n in range(60)]


@functools.cache
def _trained(kind: str) -> str:
    if kind == UNIGRAM:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        pieces = trainers.UnigramTrainer(
            vocab_size=300, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]
        )
        tokenizer.train_from_iterator(corpus(), pieces)
        return str(tokenizer.to_str())
    tokenizer = Tokenizer(models.BPE())
    if kind in SENTENCE_PIECE:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        alphabet: list[str] = []
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=420, show_progress=False, initial_alphabet=alphabet)
    )
    return str(tokenizer.to_str())


def _pairs(first: list[str], trained: dict[str, Any], byte_fallback: bool = False) -> models.BPE:
    vocab = {token: number for number, token in enumerate((*first, *trained["vocab"]))}
    merges = [tuple(merge) for merge in trained["merges"]]
    unknown = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True} if byte_fallback else {}
    return models.BPE(vocab, merges, **unknown)


def _unigram(first: list[str], trained: dict[str, Any]) -> models.Unigram:
    """Bytes are far less likely than any piece. Scores are rounded: the library reads a long number one bit off."""
    pieces = [(token, round(score, 3)) for token, score in trained["vocab"] if token != "<unk>"]
    return models.Unigram(
        [*((token, -20.0 * token.startswith("<0x")) for token in first), *pieces], 0, byte_fallback=True
    )


def tokenizer_of(kind: str) -> Tokenizer:
    """One of `KINDS`: with <s> and </s>, and control tokens of which the DeepSeek ones are not marked as special."""
    trained = json.loads(_trained(kind))["model"]
    first = ["<unk>", BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256) if kind in SENTENCE_PIECE)]
    if kind in SENTENCE_PIECE:
        tokenizer = Tokenizer(
            _unigram(first, trained) if kind == UNIGRAM else _pairs(first, trained, byte_fallback=True)
        )
        strip = decoders.Strip(" ", 1, 0)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
        )
        if kind == LEGACY:
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            scheme = "always" if kind == EVERY_PIECE else "first"
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
        begin = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
        tokenizer.post_processor = begin
    else:
        tokenizer = Tokenizer(_pairs(first, trained))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == PREFIXED_BYTES)
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", BOS, EOS)])
    tokenizer.add_tokens([AddedToken(name, normalized=False, special="｜" not in name) for name in CONTROL])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


def write(folder: Path, tokenizer: Tokenizer, ends: Any = None, **config: Any) -> Path:
    """A folder with the tokenizer's two files, and `generation_config.json` where `ends` are given."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, **config}
    (folder / CONFIG_FILE).write_text(json.dumps(fields), encoding="utf-8")
    if ends is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    return folder
