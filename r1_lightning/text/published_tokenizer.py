"""Reads published tokenizers, and keeps untrusted text from producing control tokens.

A `tokenizer.json` records not only a vocabulary but also settings of its last use. Four of them would cause silent errors:

- `truncation` and `padding` of a training call before `save_pretrained`: they are switched off;
- a prefix space: SentencePiece tokenizers (Llama 2, Mistral) put "▁" before every text, so a completion, which is tokenised apart
  from its prompt, would start with a superfluous space. `continuing` returns the same tokenizer for text that continues another;
- the token that begins a text, which may be set in `tokenizer_config.json` alone (`add_bos_token`, DeepSeek's folders);
- the tokens that end a text, of which there may be several (`eos_token_id: [2, 3]` in `generation_config.json`).

A **control token** structures a conversation: it is marked as special, or is spelled like such tokens (`<|im_end|>`, `<｜User｜>`).
In a template its spelling is that token. In a question, a row of data or a document its spelling is plain text, so that no text
can end a turn or begin another. Other added tokens (`<think>`) are words that any text may use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, processors

from r1_lightning.types.errors import InvalidInput, require

GENERATION_FILE, MODEL_FILE = "generation_config.json", "config.json"
_LOOKS_LIKE_CONTROL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)


# The class name of every `tokenizer.json` in transformers 5; version 4 knows only the older name, version 5 both.
NEWER_CLASS = "TokenizersBackend"

# The settings of a published tokenizer that `TextTokenizer.save` keeps besides those of our own; others may name code (`auto_map`).
KEPT_SETTINGS = (
    "unk_token",
    "additional_special_tokens",
    "added_tokens_decoder",
    "add_prefix_space",
    "legacy",
    "model_max_length",
    "split_special_tokens",
)


class Control(NamedTuple):
    """A control token: its id and its spelling."""

    token_id: int
    token: AddedToken


def control_tokens(tokenizer: Tokenizer, also: Sequence[int] = ()) -> dict[str, Control]:
    """Return the control tokens by spelling; added tokens with ids in `also` count, too."""
    return {
        token.content: Control(token_id, token)
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
        if token.special or token_id in also or _LOOKS_LIKE_CONTROL.fullmatch(token.content)
    }


def for_text(tokenizer: Tokenizer, control: Mapping[str, Control]) -> Tokenizer:
    """Return a copy of the tokenizer that treats the spelling of a control token as plain text."""
    unmarked = {name for name, found in control.items() if not found.token.special}
    text = tokenizer
    if unmarked:
        fields = json.loads(tokenizer.to_str())
        for token in fields["added_tokens"]:
            token["special"] = token["special"] or token["content"] in unmarked
        text = Tokenizer.from_str(json.dumps(fields))
    text.encode_special_tokens = True
    return text


def continuing(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy of the tokenizer for text that continues another: without a prefix space."""
    before = _prefixing_parts(tokenizer)
    after = {name: _without_prefix(part) for name, part in before.items()}
    if after == before:
        return tokenizer
    result = Tokenizer.from_str(json.dumps({**json.loads(tokenizer.to_str()), **after}))
    result.encode_special_tokens = tokenizer.encode_special_tokens
    return result


def _prefixing_parts(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the components of `tokenizer.json` that may put something before a text."""
    parts = {"normalizer": tokenizer.normalizer, "pre_tokenizer": tokenizer.pre_tokenizer}
    return {name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()}


def _without_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a normalizer or pre-tokenizer without its prefix before the first word."""
    if part is None or part["type"] == "Prepend":
        return None
    if part["type"] == "Sequence":
        members = "normalizers" if "normalizers" in part else "pretokenizers"
        kept = [_without_prefix(member) for member in part[members]]
        return {**part, members: [member for member in kept if member is not None]}
    if part["type"] == "Metaspace":
        without = {key: value for key, value in part.items() if key != "add_prefix_space"}
        return {**without, "prepend_scheme": "never"}
    return {**part, "add_prefix_space": False} if part.get("add_prefix_space") else part


def prefixes_every_piece(tokenizer: Tokenizer) -> bool:
    """True if a space precedes each stretch of text between control tokens; False if only the first."""
    return '"prepend_scheme": "first"' not in json.dumps(_prefixing_parts(tokenizer))


def added_words(tokenizer: Tokenizer, control: Mapping[str, Control]) -> list[str]:
    """Return the added tokens that any text may use."""
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    return [name for name in added if name not in control]


def first_stretch(text: str, words: re.Pattern[str]) -> str:
    """Return the part of `text` before the first of `words`, added tokens that any text may use."""
    match = words.search(text)
    return text if match is None else text[: match.start()]


def begin_with(tokenizer: Tokenizer, bos: str | None, eos: str, wanted: bool) -> bool:
    """Make `tokenizer` begin texts with `bos` if it already does or if `wanted`; return whether it does.

    An `eos` that it adds to every text is removed: a prompt must not have one, and packing adds it to documents. Raises
    InvalidInput if the tokenizer adds anything else.
    """
    require(not wanted or bos is not None, "add_bos_token", True, "tokenizer_config.json must name a bos_token")
    around = tokenizer.encode("", add_special_tokens=True).tokens
    begins = bos is not None and around[:1] == [bos]
    allowed = "the tokens that it adds to a text must be none, or bos_token before it and eos_token after it"
    require(around[begins:] in ([], [eos]), "tokenizer", around, allowed)
    if around[begins:] or wanted > begins:
        begins = begins or wanted
        single = f"{bos}:0 $A:0" if begins else "$A:0"
        special = [(bos, tokenizer.token_to_id(bos))] if bos is not None and begins else []
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} $B:1", special_tokens=special
        )
    return begins


def token_name(entry: Any) -> str | None:
    """Return the name of a special token from `tokenizer_config.json`, where it is text, an object with `content`, or null."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    require(
        content is None or isinstance(content, str),
        "tokenizer",
        entry,
        "tokenizer_config.json must name tokens by text",
    )
    return content or None


def encoded(tokenizer: Tokenizer, texts: Sequence[str], begins: bool) -> list[list[int]]:
    """Return the token ids of texts, with the tokenizer's `bos` if it `begins`. `InvalidInput` for unpaired surrogates."""
    try:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=begins)
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidInput(f"text is not allowed: every item must be a str of valid Unicode ({error})") from error
    return [encoding.ids for encoding in encodings]


def end_ids(folder: Path) -> tuple[int, ...]:
    """Return the ids that end a text from `generation_config.json`, or from `config.json` if that is missing; () for none.

    Raises InvalidInput for a file that is not JSON and for values that are not ids.
    """
    path = next((folder / name for name in (GENERATION_FILE, MODEL_FILE) if (folder / name).is_file()), None)
    if path is None:
        return ()
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} cannot be read: it is no JSON ({error})") from error
    require(isinstance(fields, dict), str(path), type(fields).__name__, "it must be a JSON object")
    given = fields.get("eos_token_id")
    ids = given if isinstance(given, list) else [] if given is None else [given]
    is_ids = all(type(token_id) is int and token_id >= 0 for token_id in ids)
    require(is_ids, f"{path.name}: eos_token_id", given, "it must be an id, or a list of ids")
    return tuple(dict.fromkeys(ids))


# One stretch of a prompt: a control token's id, or text.
Stretch = int | str


def stretches(pieces: Sequence[str], control: Mapping[str, Control]) -> list[Stretch]:
    """Split a prompt into control tokens and the text between them.

    `pieces` alternate: 0, 2, ... are a template's and may contain control tokens; 1, 3, ... are questions and stay text. A token
    that absorbs adjacent white space (`lstrip`, `rstrip`) does so here as well.
    """
    pattern = any_of(control)
    found: list[Stretch] = [""]
    strips_next = False
    for number, piece in enumerate(pieces):
        parts = _split(pattern, piece) if number % 2 == 0 else [piece]
        for index, part in enumerate(parts):
            if index % 2 == 0:
                text = part.lstrip() if strips_next else part
                strips_next = strips_next and not text
                found[-1] = f"{found[-1]}{text}"
                continue
            token_id, token = control[part]
            if token.lstrip:
                found[-1] = str(found[-1]).rstrip()
            found += [token_id, ""]
            strips_next = token.rstrip
    return [stretch for stretch in found if stretch != ""]


def cut(text: str, spelled: re.Pattern[str] | None) -> list[str]:
    """Split `text` after the first character of every match of `spelled`."""
    places = [match.start() + 1 for match in spelled.finditer(text)] if spelled else []
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches the longest of `texts`; without texts it matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    """Split `text` into text, match, text, match, ..., text."""
    parts, end = [], 0
    for match in pattern.finditer(text):
        parts += [text[end : match.start()], match[0]]
        end = match.end()
    return [*parts, text[end:]]
