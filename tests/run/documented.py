"""What README.md and docs/guide.md tell a reader to type, as data: whole commands, arguments of `train.py`, programs in Python.

Nothing is written down twice: the documents are read, and a line that is added to them is found. A reader's own values stand there
in capitals (FILE, FOLDER, RUN, OWNER/NAME, ...), as `/path/to/...` or as `...`: `fill` puts others in their place.
"""

from __future__ import annotations

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.architecture.documents import CODE_BLOCK, CODE_SPAN
from tests.architecture.house import ROOT

DOCUMENTS = ("README.md", "docs/guide.md")
PROGRAM = re.compile(r"(?:python|r1|pip|pytest|tensorboard|lint-imports)\b")
ARGUMENT = re.compile(r"[+~]*[a-z_]\w*(?:[.@/]\w+)*=\S.*", re.S)
FLAG = re.compile(r"--[a-z]")
EXAMPLES = ("name=value",)  # spans that say what an argument looks like


@dataclass(frozen=True)
class Piece:
    """`words` of a command line, and the heading below which it stands."""

    document: str
    section: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        return shlex.join(self.words)

    @property
    def key(self) -> str:
        """How tables of tests name it: as one would write it without quotes."""
        return " ".join(self.words)


def commands() -> list[Piece]:
    """Every command, once. In a table, a command is there once more with all options that its row names."""
    found = []
    for document, section, text in _sections():
        for block in CODE_BLOCK.finditer(text):
            for line in block[1].splitlines() if not _language(block) else ():
                for part in line.split(" && "):
                    words = tuple(shlex.split(part, comments=True))
                    found += [Piece(document, section, words)] if words and PROGRAM.match(words[0]) else []
        for line in CODE_BLOCK.sub("", text).splitlines():
            spans = [tuple(shlex.split(span)) for span in CODE_SPAN.findall(line) if "'" not in span or _closes(span)]
            runs = [words for words in spans if words and PROGRAM.match(words[0]) and len(words) > 1]
            found += [Piece(document, section, words) for words in runs]
            if line.startswith("|") and len(runs) == 1:
                found += _with_options(Piece(document, section, runs[0]), spans)
    return list({piece.key: piece for piece in found}.values())


def options() -> list[Piece]:
    """Every span of arguments of `train.py`, once in each section; where values are joined by `|`, one for each."""
    found = []
    for document, section, text in _sections():
        for line in CODE_BLOCK.sub("", text).splitlines():
            spans = [span for span in CODE_SPAN.findall(line) if span not in EXAMPLES]
            if line.startswith("|") and any(_is_other_script(span) for span in spans):
                continue  # the options of its row belong to it
            for span in spans:
                words = shlex.split(span) if _closes(span) else []
                if words and all(ARGUMENT.fullmatch(word) for word in _joined(words)):
                    found += [Piece(document, section, words) for words in _alternatives(_joined(words))]
    return list({(piece.section, piece.key): piece for piece in found}.values())


def programs() -> list[tuple[str, str]]:
    """The Python and the YAML of the documents, each with its language."""
    found = []
    for _, _, text in _sections():
        for block in CODE_BLOCK.finditer(text):
            if _language(block):
                found.append((_language(block), textwrap.dedent(block[1])))
    return found


def fill(words: tuple[str, ...], places: Mapping[str, str]) -> list[str]:
    """`words` with the reader's own values. `places` maps what to replace, longest first, or KEY=NAME for one key alone."""
    filled = []
    for word in words:
        for place in sorted(places, key=lambda name: ("=" not in name, -len(name))):
            start = rf"(?<![\w.+@])(?={re.escape(place)})" if "=" in place else r"(?<![\w/-])"
            key = f"{place.partition('=')[0]}=" if "=" in place else ""
            word = re.sub(rf"{start}{re.escape(place)}(?![\w/])", lambda _, p=place, k=key: k + places[p], word)
        filled.append(word)
    return filled


def unfilled(words: list[str]) -> list[str]:
    """Words that still hold a reader's own value."""
    return [word for word in words if re.search(r"(?<![A-Za-z_.-])[A-Z]{3,}(?![\w-])|\.\.\.|/path/to", word)]


def _sections() -> Iterator[tuple[str, str, str]]:
    for document in DOCUMENTS:
        parts = re.split(r"^## +(.+)$", (ROOT / document).read_text(encoding="utf-8"), flags=re.M)
        yield document, "", parts[0]
        for section, text in zip(parts[1::2], parts[2::2], strict=True):
            yield document, section, text


def _language(block: re.Match[str]) -> str:
    return block[0].lstrip().partition("\n")[0].removeprefix("```")


def _closes(span: str) -> bool:
    """Whether the quotes of a span are a shell's: an apostrophe of prose is none."""
    try:
        return bool(shlex.split(span))
    except ValueError:
        return False


def _joined(words: list[str]) -> tuple[str, ...]:
    """As Hydra would have them where the document leaves out the quotes: `{a: 1, b: 2}` is one value."""
    joined: list[str] = []
    for word in words:
        is_rest = joined and joined[-1].count("{") > joined[-1].count("}")
        joined = [*joined[:-1], f"{joined[-1]} {word}"] if is_rest else [*joined, word]
    return tuple(joined)


def _alternatives(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    each = []
    for word in words:
        key, _, value = word.partition("=")
        each.append([f"{key}={one}" for one in value.split("|")] if re.fullmatch(r"[\w|]+", value) else [word])
    yield from itertools.product(*each)


def _is_other_script(span: str) -> bool:
    return span.startswith(("python ", "r1 ")) and "scripts/train.py" not in span and not span.startswith("r1 train")


def _with_options(piece: Piece, spans: list[tuple[str, ...]]) -> list[Piece]:
    """The command with all flags and values that its row names; of one key, the last; of a nested command none."""
    words, flags = list(piece.words), []
    for span in spans:
        if len(span) == 1 and ARGUMENT.fullmatch(span[0]):
            key = span[0].partition("=")[0]
            words = [word for word in words if word.partition("=")[0] != key] + [span[0]]
        elif span and FLAG.match(span[0]):
            flags += span
    more = (*words, *flags)
    return [] if more == piece.words else [Piece(piece.document, piece.section, more)]
