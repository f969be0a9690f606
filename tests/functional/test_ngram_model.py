"""N-gram models by hand, against plain loops over dictionaries, and as distributions."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from r1_lightning.functional.ngram_model import Text, bits_per_token, ngram_probabilities
from r1_lightning.types.errors import InvalidInput


def text(*documents: list[int]) -> Text:
    tokens = [token for document in documents for token in document]
    first = [place == 0 for document in documents for place in range(len(document))]
    return Text(np.array(tokens), np.array(first))


def test_two_orders_by_hand():
    """Trained on 0 1 1 2 and 0 1 2, V = 4; predicted are 1 1 2, 1 2: c(1) = 3, c(2) = 2, five in all.

    n = 1: P(1) = (3 + 1) / (5 + 4) = 4/9, P(2) = 3/9, P(3) = 1/9.
    n = 2, after 1: it was followed by 1, 2, 2, so c = 3 and t = 2. Laplace: P(2 | 1) = 3/7, P(3 | 1) = 1/7.
    Back-off: P(2 | 1) = (2 + 2 x 3/9) / 5 = 8/15, P(3 | 1) = (0 + 2 x 1/9) / 5 = 2/45; 3 was never followed by anything, so
    P(1 | 3) = P(1) = 4/9, and Laplace has 1/4.
    """
    one, two = ngram_probabilities(text([0, 1, 1, 2], [0, 1, 2]), text([1, 2], [1, 3, 1]), 4, 2)
    assert one.laplace == pytest.approx([3 / 9, 1 / 9, 4 / 9], rel=1e-12)
    assert one.backoff == pytest.approx([3 / 9, 1 / 9, 4 / 9], rel=1e-12)
    assert two.laplace == pytest.approx([3 / 7, 1 / 7, 1 / 4], rel=1e-12)
    assert two.backoff == pytest.approx([8 / 15, 2 / 45, 4 / 9], rel=1e-12)


def test_the_beginning_of_a_document_is_a_context():
    """Order 3: 5 0 was the beginning of both documents, and is not the same as 5 0 in the middle of one."""
    trained = text([5, 0, 1], [5, 0, 1], [3, 5, 0, 2])
    *_, three = ngram_probabilities(trained, text([5, 0, 1], [3, 5, 0, 2]), 6, 3)
    # After (mark, 5): 0 twice. After (5, 0) in whatever place: 1, 1, 2. Laplace with V = 6.
    assert three.laplace == pytest.approx([3 / 8, 3 / 9, 2 / 7, 2 / 7, 2 / 9], rel=1e-12)


def test_bits_by_hand():
    assert bits_per_token(np.array([0.5, 0.25])) == 1.5


def plain(trained: list[list[int]], held_out: list[list[int]], vocab: int, order: int, add: float) -> list[float]:
    """The back-off of the module's docstring as loops and recursion."""
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for document in trained:
        for place in range(1, len(document)):
            padded = (-1,) * order + tuple(document[:place])
            for n in range(order):
                counts[padded[len(padded) - n :]][document[place]] += 1

    def probability(context: tuple[int, ...], token: int) -> float:
        seen = counts[context]
        if not context:
            return (seen[token] + add) / (seen.total() + add * vocab)
        kinds = sum(1 for times in seen.values() if times)
        lower = probability(context[1:], token)
        return (seen[token] + kinds * lower) / (seen.total() + kinds) if seen else lower

    found = []
    for document in held_out:
        for place in range(1, len(document)):
            padded = (-1,) * order + tuple(document[:place])
            found.append(probability(padded[len(padded) - order + 1 :] if order > 1 else (), document[place]))
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_against_plain_loops(order):
    rng = random.Random(order)

    def documents(count: int) -> list[list[int]]:
        return [[rng.choice([0, 1, 2, 2, 3, 6]) for _ in range(rng.randint(1, 9))] for _ in range(count)]

    trained, held_out = documents(30), documents(8)
    *_, found = ngram_probabilities(text(*trained), text(*held_out), 7, order, 0.5)
    assert found.backoff == pytest.approx(plain(trained, held_out, 7, order, 0.5), rel=1e-12)


@pytest.mark.parametrize("context", [[0, 1], [0, 1, 1], [4, 4, 4], [0]])
def test_both_are_distributions(context):
    """Over all 5 tokens the probabilities add up to 1, after seen and unseen contexts."""
    trained = text([0, 1, 1, 2], [0, 1, 2, 3, 1, 2])
    held_out = text(*[[*context, token] for token in range(5)])
    for found in ngram_probabilities(trained, held_out, 5, 4):
        for values in (found.laplace, found.backoff):
            assert values.reshape(5, len(context))[:, -1].sum() == pytest.approx(1.0, rel=1e-12)


def test_a_vocabulary_as_large_as_v3s_does_not_overflow():
    documents = np.random.default_rng(0).permutation(129_280)[:1000].reshape(20, 50).tolist()
    *_, found = ngram_probabilities(text(*documents), text(*documents[:2]), 129_280, 6)
    # Every context of five was seen once, with this token: (1 + P_5) / 2, down to P_1 near 2 / 130,260.
    assert found.backoff == pytest.approx([1 - 2**-5] * 98, abs=1e-3)


def test_longer_contexts_cost_nothing_where_text_repeats():
    trained = text(*[[0, 1, 2, 3, 4]] * 50)
    bits = [bits_per_token(p.backoff) for p in ngram_probabilities(trained, text([0, 1, 2, 3, 4]), 5, 2)]
    assert bits[0] == pytest.approx(-math.log2(51 / 205), rel=1e-12) and bits[1] < 0.03


@pytest.mark.parametrize(
    ("trained", "held_out", "line"),
    [
        (text([1], [2]), text([1, 2]), "trained=2 is not allowed: a text needs a document of two tokens"),
        (text([1, 2]), text([1]), "held_out=1 is not allowed"),
        (text([1, 2]), text([1, 9]), "ids must be in 0..4"),
    ],
)
def test_what_cannot_be_counted_is_refused(trained, held_out, line):
    with pytest.raises(InvalidInput, match=line):
        next(ngram_probabilities(trained, held_out, 5, 2))


def test_a_text_begins_with_a_document():
    with pytest.raises(InvalidInput, match="a document must begin"):
        Text(np.array([1, 2]), np.array([False, True]))
