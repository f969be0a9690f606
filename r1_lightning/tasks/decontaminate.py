"""Keeping benchmarks out of training data: no text may share ten words in a row with a question that is tested on.

R1 filters its data against its benchmarks by 10-grams (arXiv:2501.12948v2, B.3). Units are words, in Chinese characters
(`text.ngrams`). A question with fewer than ten has no such run: it is found only where a whole text says the same, case, spacing,
full-width forms and the punctuation at its end aside; its signs count then, because `12-3` and `12+3` are the same words.

Where every question of a task opens with the same words ("Write a function f of x: ..."), ten in a row are little more than the
opening, and nine such questions in ten would be dropped though another number makes another problem. A longer run is the remedy
(`n`; in stage=sample `contamination_ngram`): GPT-3 took 13 (arXiv:2005.14165, appendix C).

All runs of all benchmarks are in one dictionary, so that looking a text up takes time in proportion to its length alone.
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
    """Knows the questions of several benchmarks, by name; `n_questions` counts them. Of two with one run, the first is named."""

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
        """The benchmark of which `text` holds a run, or which it repeats as a whole; None for a clean text."""
        words = units(text)
        if len(words) < self.n:
            return self._short.get(_whole(text))
        return next((self._runs[run] for run in ngrams(words, self.n) if run in self._runs), None)


def held_out_questions(source: Any, count: int) -> list[str]:
    """All questions that a problem source holds out; the first `count` of one that makes them without end.

    Of a mixture those of its first part, as everywhere. A source with training rows only gives none.
    """
    if isinstance(source, MixtureTask):
        source = source.parts[0].source
    wanted = getattr(source, "n_held_out", count)
    return [problem.question for problem in source.held_out_problems(wanted)] if wanted else []


def _whole(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".?!。=")
