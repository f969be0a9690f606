"""Decontamination: no training text may share a 10-gram with a benchmark question.

R1 filters its data against its benchmarks by 10-grams (arXiv:2501.12948v2, B.3). Units are words, for Chinese characters
(`text.ngrams`). A question with fewer than ten units has no 10-gram; it matches only a text that equals it as a whole, ignoring
case, spacing, full-width forms and final punctuation. Other signs count in this comparison, because `12-3` and `12+3` have the same
words.

If all questions of a task start with the same words ("Write a function f of x: ..."), a 10-gram is little more than this start, and
nine in ten such questions would be dropped although another number makes another problem. A longer n-gram solves this (`n`; in
stage=sample `contamination_ngram`): GPT-3 used 13 (arXiv:2005.14165, appendix C).

One dictionary holds all n-grams of all benchmarks, so that checking a text takes time proportional to its length alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from r1_lightning.tasks.mixture import MixtureTask
from r1_lightning.text.ngrams import ngrams, units
from r1_lightning.types.errors import require_int

NGRAM = 10


class Decontaminator:
    """Finds questions of several named benchmarks in texts; if two benchmarks share an n-gram, it names the first."""

    def __init__(self, questions: Mapping[str, Iterable[str]], n: int = NGRAM) -> None:
        require_int("n", n, 1)
        self.n = n
        self.n_questions: dict[str, int] = {}
        self._runs: dict[tuple[str, ...], str] = {}
        self._short: dict[str, str] = {}
        for name, texts in questions.items():
            self.n_questions[name] = 0
            for text in texts:
                self.n_questions[name] += 1
                words = units(text)
                if len(words) < n:
                    self._short.setdefault(_whole(text), name)
                for run in ngrams(words, n):
                    self._runs.setdefault(run, name)

    def leak(self, text: str) -> str | None:
        """Return the benchmark with which `text` shares an n-gram or a whole short question; None for a clean text."""
        words = units(text)
        if len(words) < self.n:
            return self._short.get(_whole(text))
        return next((self._runs[run] for run in ngrams(words, self.n) if run in self._runs), None)


def held_out_questions(source: Any, count: int) -> list[str]:
    """Return all held-out questions of a problem source, or the first `count` of an endless source.

    A mixture has those of its first part. A source with training rows only has none.
    """
    if isinstance(source, MixtureTask):
        source = source.parts[0].source
    wanted = getattr(source, "n_held_out", count)
    return [problem.question for problem in source.held_out_problems(wanted)] if wanted else []


def _whole(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".?!。=")
