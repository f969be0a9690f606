"""A byte-level BPE tokenizer, trained within a run, in HuggingFace's file format; also loads published tokenizers.

Three design choices help a model to learn arithmetic:

- **Digits, operators and punctuation never merge.** 12+30=42 is eight tokens in every context, so the model sees place value and
  no number is a token of its own. Only letters merge (the space before a word belongs to the word), and the bytes of one character.
- **The R1 tags are single tokens**, and so is every phrase of the caller, for instance the sentence of R1-Zero's template. They are
  ordinary tokens, not special ones: decoding shows them.
- **Every text survives**: the alphabet is the 256 bytes and nothing is normalised, so decode(encode(text)) == text. Text that
  spells a special token, such as the end of sequence, is encoded as plain characters, so a question cannot end a document.

The special tokens have DeepSeek's names, and encoding never adds them: packing puts `eos_id` between documents. A published
tokenizer from a HuggingFace folder keeps its own names, its own beginning of a text (Llama's `bos`) and all of its end tokens;
`text/published_tokenizer.py` describes what else such folders contain. The spelling of a special token is that token in a template,
never in a question.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from r1_lightning.text import published_tokenizer as published
from r1_lightning.text.chat_template import R1_ZERO, ChatTemplate
from r1_lightning.text.reasoning_format import TAGS
from r1_lightning.types.errors import InvalidInput, require, require_int

BOS_TOKEN, EOS_TOKEN, PAD_TOKEN = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
SPECIAL_TOKENS = (BOS_TOKEN, EOS_TOKEN, PAD_TOKEN)
N_BYTES = 256

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"

# One alternative per kind of piece; BPE merges only inside a piece. In this order: a word with the space before it, one
# digit, one sign (operators and punctuation of every script), white space except the last one before a word, white space.
_PIECES = r" ?[\p{L}\p{M}]+|\p{N}|[\p{P}\p{S}]|\s+(?!\S)|\s+"


# The settings that `save` writes, besides the chat template, for our own tokenizers.
OUR_CONFIG: Mapping[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": BOS_TOKEN,
    "eos_token": EOS_TOKEN,
    "pad_token": PAD_TOKEN,
    "add_bos_token": False,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
}


class TextTokenizer:
    """Converts text to token ids and back. Made by `train_tokenizer` or `TextTokenizer.load`.

    `config` is a `tokenizer_config.json`, which names the special tokens. `eos_id` follows a text; it and the other `eos_ids` end
    a completion. Without a padding token `pad_id` is `eos_id`, because a mask always marks padding. `bos_id` is None if there is
    none.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: Mapping[str, Any] = OUR_CONFIG, end_ids: Sequence[int] = ()
    ) -> None:
        vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        names = {role: published.token_name(config.get(f"{role}_token")) for role in ("bos", "eos", "pad")}
        require(names["eos"] is not None, "tokenizer", CONFIG_FILE, "it must name an eos_token")
        missing = [name for name in names.values() if name is not None and name not in vocabulary]
        require(not missing, "tokenizer", missing, "the special tokens must be in the vocabulary")
        self._vocab_size = max(vocabulary.values()) + 1  # ids may have gaps
        unknown = [token_id for token_id in end_ids if token_id >= self._vocab_size]
        require(not unknown, "eos_token_id", unknown, f"the tokenizer has {self._vocab_size} tokens")
        ids = {role: None if name is None else vocabulary[name] for role, name in names.items()}
        eos_id = ids["eos"]
        assert eos_id is not None
        self.eos_id = eos_id
        self.eos_ids = tuple(dict.fromkeys((eos_id, *end_ids)))
        self.bos_id = ids["bos"]
        self.pad_id = eos_id if ids["pad"] is None else ids["pad"]
        tokenizer.no_truncation()
        tokenizer.no_padding()
        wants_bos = config.get("add_bos_token")
        require(wants_bos in (None, False, True), "add_bos_token", wants_bos, "it must be true or false")
        self.begins_with_bos = published.begin_with(tokenizer, names["bos"], str(names["eos"]), wants_bos is True)
        self._control = published.control_tokens(tokenizer, (*self.eos_ids, self.pad_id))
        self._words = published.any_of(published.added_words(tokenizer, self._control))
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._text = published.for_text(tokenizer, self._control)
        self._continuing = published.continuing(self._text)
        self._prefixes_every_piece = published.prefixes_every_piece(self._text)
        self._config = dict(config)
        # A Unigram model may contain the spelling of a control token as an ordinary word.
        leaking = [
            name for name, (i, _) in self._control.items() if i in published.encoded(self._text, [name], False)[0]
        ]
        self._leaking = published.any_of(leaking) if leaking else None

    @property
    def vocab_size(self) -> int:
        """The number of ids, added tokens included; every id is below it."""
        return self._vocab_size

    @property
    def control(self) -> tuple[str, ...]:
        """Spellings of the control tokens."""
        return tuple(self._control)

    def ending_with(self, token: str) -> TextTokenizer:
        """Return the tokenizer with one more token that ends a completion; itself for "" or one that it has.

        InvalidInput for a token that is not in the vocabulary.
        """
        if not token:
            return self
        found = self.token_to_id(token)
        if found is None:
            raise InvalidInput(f"the end of a reply, {token!r}, is no token of the tokenizer")
        return (
            self
            if found in self.eos_ids
            else TextTokenizer(Tokenizer.from_str(self._tokenizer.to_str()), self._config, (*self.eos_ids, found))
        )

    def end_id(self, template: ChatTemplate) -> int:
        """Return the id that ends a reply in `template`: its own, or the end of sequence."""
        found = self.token_to_id(template.end) if template.end else self.eos_id
        assert found in self.eos_ids, "`ending_with` comes first"
        return found

    def digest(self) -> str:
        """A digest that changes with everything that can change a text's ids."""
        parts = (self._tokenizer.to_str(), json.dumps(self._config, sort_keys=True), self.eos_ids, self.begins_with_bos)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def vocabulary(self) -> dict[str, int]:
        """Return each token's spelling and its id, added tokens included."""
        tokens: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return tokens

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a single token, for instance a tag, or None."""
        token_id: int | None = self._tokenizer.token_to_id(token)
        return token_id

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, with the tokenizer's `bos` if it adds one. `InvalidInput` for unpaired surrogates."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, computed on all cores, without character offsets."""
        return self._read(self._text, texts, begins=True)

    def encode_continuations(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts that continue others, such as completions: without a prefix before the first word."""
        if self._continuing is self._text or not self._prefixes_every_piece:
            return self._read(self._continuing, texts, begins=False)
        firsts = [published.first_stretch(text, self._words) for text in texts]
        opened = self._read(self._continuing, firsts, begins=False)
        rests = [text[len(first) :] for text, first in zip(texts, firsts, strict=True)]
        return [a + b for a, b in zip(opened, self._read(self._text, rests, begins=False), strict=True)]

    def encode_prompts(self, template: ChatTemplate, questions: Sequence[str], after: str = "") -> list[list[int]]:
        """Return the token ids of each question in its template, followed by the template text `after` it.

        The spelling of a control token is that token in the template, and plain text in a question.
        """
        pieces = [template.pieces(question) for question in questions]
        return self.encode_pieces(pieces, after, begins=not template.writes_whole_text)

    def encode_pieces(self, prompts: Sequence[Sequence[str]], after: str = "", begins: bool = True) -> list[list[int]]:
        """Return the token ids of prompts in pieces (`ChatTemplate.pieces`), each followed by `after`; with `bos` if asked to."""
        split = [published.stretches((*pieces[:-1], pieces[-1] + after), self._control) for pieces in prompts]
        if all(len(prompt) == 1 and isinstance(prompt[0], str) for prompt in split):
            return self._read(self._text, [str(prompt[0]) for prompt in split], begins)
        return [self._joined(prompt, begins) for prompt in split]

    def _joined(self, stretches: Sequence[published.Stretch], begins: bool) -> list[int]:
        begin = [self.bos_id] if begins and self.begins_with_bos and self.bos_id is not None else []
        ids = [] if stretches[:1] == begin else begin
        for number, stretch in enumerate(stretches):
            if isinstance(stretch, int):
                ids = [*ids, stretch]
                continue
            is_first = number == 0 or self._prefixes_every_piece
            ids = [*ids, *self._read(self._text if is_first else self._continuing, [stretch], begins=False)[0]]
        return ids

    def _read(self, tokenizer: Tokenizer, texts: Sequence[str], begins: bool) -> list[list[int]]:
        """Return the token ids of texts; a spelling that would still become a control token is split after its first character."""
        rows = published.encoded(tokenizer, texts, begins)
        for number, text in enumerate(texts if self._leaking else ()):
            first, *rest = published.cut(text, self._leaking)
            if rest:
                parts = published.encoded(tokenizer, [first], begins) + published.encoded(self._continuing, rest, False)
                rows[number] = [token_id for ids in parts for token_id in ids]
        return rows

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Return the text of `ids`. Invalid byte sequences, which a model may sample, become U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def decode_batch(self, batch: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        """Decode each row, on all cores."""
        texts: list[str] = self._tokenizer.decode_batch([list(ids) for ids in batch], skip_special_tokens=skip_special)
        return texts

    def save(self, folder: str | Path, template: ChatTemplate = R1_ZERO) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers.AutoTokenizer` reads.

        By default `transformers` reads the spelling of a special token as that token, our tokenizer never does; for all other
        text the ids are equal.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / TOKENIZER_FILE).write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")
        kept = {name: value for name, value in self._config.items() if name in (*OUR_CONFIG, *published.KEPT_SETTINGS)}
        done: dict[str, Any] = {"add_bos_token": self.begins_with_bos, "add_eos_token": False}
        if kept.get("tokenizer_class") == published.NEWER_CLASS:
            done["tokenizer_class"] = OUR_CONFIG["tokenizer_class"]
        config = {**kept, **done, "chat_template": template.jinja(self.begins_with_bos)}
        _write_json(path / CONFIG_FILE, config)
        if len(self.eos_ids) > 1:
            _write_json(path / published.GENERATION_FILE, {"eos_token_id": list(self.eos_ids)})

    @classmethod
    def load(cls, folder: str | Path) -> TextTokenizer:
        """Load a folder that `save` wrote, or another in HuggingFace's format. `InvalidInput` if a file is missing or broken.

        Other files in the folder (code, a slow tokenizer's files) are ignored.
        """
        path = Path(folder) / TOKENIZER_FILE
        for name in (TOKENIZER_FILE, CONFIG_FILE):
            require((Path(folder) / name).is_file(), "tokenizer", str(folder), f"the folder must hold {name}")
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the Rust library raises bare Exception for a file it cannot read
            raise InvalidInput(f"tokenizer={str(path)!r} is not allowed: the file is broken ({error})") from error
        try:
            config = json.loads((Path(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"tokenizer={str(folder)!r} is not allowed: {CONFIG_FILE} is no JSON ({error})"
            ) from error
        require(isinstance(config, dict), "tokenizer", str(folder), f"{CONFIG_FILE} must hold an object")
        return cls(tokenizer, config, published.end_ids(Path(folder)))


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(fields, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def train_tokenizer(texts: Iterator[str], vocab_size: int, phrases: Sequence[str] = ()) -> TextTokenizer:
    """Train on `texts`; the same texts and settings give the same tokenizer.

    `vocab_size` counts everything: 3 special tokens, 4 tags, the phrases, 256 bytes, and the merges. Text with too few distinct
    words gives fewer merges, so read the actual size from the result's `vocab_size`. `phrases` become single tokens wherever they
    occur; the longest match wins. Raises `InvalidInput` for a size too small for the fixed tokens above, and for a phrase that is
    empty or could not be decoded.
    """
    added = tuple(dict.fromkeys((*TAGS, *phrases)))
    require(all(added), "phrases", "", "a phrase must not be empty")
    require(not set(added) & set(SPECIAL_TOKENS), "phrases", list(phrases), "a phrase must not be a special token")
    require_int("vocab_size", vocab_size, minimum=len(SPECIAL_TOKENS) + len(added) + N_BYTES)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(added),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_between_added_tokens(texts, added), trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in added])
    result = TextTokenizer(tokenizer)
    for phrase in added:
        single = result.encode(phrase)
        ok = len(single) == 1 and result.decode(single) == phrase
        require(ok, "phrases", phrase, "a phrase must be one that a byte-level tokenizer can hold as a token")
    return result


def _between_added_tokens(texts: Iterator[str], added: Sequence[str]) -> Iterator[str]:
    """Yield the text between added tokens, from which merges are learned; added tokens never reach BPE."""
    pattern = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))))
    for text in texts:
        yield from filter(None, pattern.split(text))
