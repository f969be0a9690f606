"""Chains by hand, the train/test split as a property of keys, and draws that stay in bounds."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.tasks import chains
from r1_lightning.tasks.chains import (
    Chain,
    draw_chain,
    draw_term,
    draw_training_chain,
    fact_value,
    may_test_on,
    may_train_on,
)
from tests.support.shares import near

PRODUCT = Chain((7, 8), (-19, 42))
PLAIN = Chain((56,), (-19, 42))


def test_a_chain_by_hand() -> None:
    """7*8-19+42: 56, 37, 79."""
    assert PRODUCT.n_operations == 3
    assert PRODUCT.expression() == "7*8-19+42"
    assert PRODUCT.facts() == [("7*8", 56), ("56-19", 37), ("37+42", 79)]
    assert PRODUCT.value() == 79
    assert [state.expression() for state in PRODUCT.states()] == ["7*8-19+42", "56-19+42", "37+42"]
    assert PLAIN.n_operations == 2
    assert PLAIN.facts() == [("56-19", 37), ("37+42", 79)]
    assert [state.expression() for state in PLAIN.states()] == ["56-19+42", "37+42"]


def test_pieces_are_states_and_their_beginnings() -> None:
    pieces = [piece.expression() for piece in PRODUCT.pieces()]
    assert pieces == ["7*8-19", "7*8-19+42", "56-19+42"]
    four = Chain((1,), (2, 3, 4, 5))  # 1+2+3+4+5, 3+3+4+5, 6+4+5
    expected = {"1+2+3", "1+2+3+4", "1+2+3+4+5", "3+3+4", "3+3+4+5", "6+4+5"}
    assert {piece.expression() for piece in four.pieces()} == expected
    assert list(Chain((3,), (4,)).pieces()) == []  # facts are shared by both sides of the split


def test_a_key_forgets_the_order_of_operands_and_nothing_else() -> None:
    assert PRODUCT.key() == "7*8|-19,42"
    assert PLAIN.key() == "-19,42,56"
    assert {Chain((8, 7), terms).key() for terms in ((-19, 42), (42, -19))} == {PRODUCT.key()}
    assert {Chain((first,), terms).key() for first, *terms in permutations((-19, 42, 56))} == {PLAIN.key()}
    others = [Chain((7, 8), (19, 42)), Chain((7, 9), (-19, 42)), PLAIN, Chain((56,), (-19, 43)), Chain((56,), (-1942,))]
    assert len({PRODUCT.key(), *(other.key() for other in others)}) == 1 + len(others)


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_steps_lead_to_the_value_and_states_keep_it(seed: int, operations: int) -> None:
    chain = draw_chain(random.Random(seed), operations, operations)
    assert chain.n_operations == operations
    facts = chain.facts()
    assert len(facts) == operations
    assert all(fact_value(left) == right and 0 <= right <= 99 for left, right in facts)
    assert facts[-1][1] == chain.value() == eval(chain.expression())
    states = list(chain.states())
    assert [state.n_operations for state in states] == list(range(operations, 0, -1))
    assert {state.value() for state in states} == {chain.value()}


@pytest.mark.parametrize(
    ("fact", "value"), [("7*8", 56), ("12+30", 42), ("30-12", 18), ("0+5", 5), ("9-9", 0), ("-3+5", 2), ("-3-5", -8)]
)
def test_fact_value(fact: str, value: int) -> None:
    assert fact_value(fact) == value


def test_train_needs_no_piece_held_out_and_test_needs_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """7*8-19+42 has the pieces 7*8-19 (a beginning), itself and 56-19+42 (its states)."""
    beginning, whole, left = "7*8|-19", PRODUCT.key(), PLAIN.key()
    cases = {
        (): (True, False),
        (beginning,): (False, False),
        (whole,): (False, False),
        (left,): (False, False),
        (whole, left): (False, True),
        (beginning, whole, left): (False, True),
    }
    for held_out, (train, test) in cases.items():
        monkeypatch.setattr(chains, "is_held_out_key", lambda key, held_out=held_out: key in held_out)
        assert (may_train_on(PRODUCT), may_test_on(PRODUCT)) == (train, test), held_out


def test_facts_are_on_neither_side(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(chains, "is_held_out_key", lambda key: asked.append(key) or True)
    may_train_on(Chain((30,), (12,)))
    may_test_on(Chain((56,), (-19, 42)))
    assert asked == [PLAIN.key()]


def test_no_chain_is_on_both_sides_and_both_sides_have_many() -> None:
    rng = random.Random(0)
    drawn = [draw_chain(rng, 2, 3) for _ in range(4_000)]
    train, test = sum(map(may_train_on, drawn)), sum(map(may_test_on, drawn))
    assert not any(may_train_on(chain) and may_test_on(chain) for chain in drawn)
    # Half have two operations (7/8 and 1/8), half three (7/8^3 = 0.67 and 1/64).
    assert train / 4_000 == near((0.875 + 0.670) / 2, 4_000)
    assert test / 4_000 == near((0.125 + 0.0156) / 2, 4_000)


def test_draws_stay_in_bounds_and_reach_them() -> None:
    rng = random.Random(1)
    drawn = [draw_chain(rng, 2, 4) for _ in range(3_000)]
    assert {chain.n_operations for chain in drawn} == {2, 3, 4}
    products = [chain.first for chain in drawn if len(chain.first) == 2]
    assert len(products) / 3_000 == near(0.25, 3_000)
    assert {factor for product in products for factor in product} == set(range(2, 10))
    singles = {chain.first[0] for chain in drawn if len(chain.first) == 1}
    assert singles == set(range(2, 61))
    terms = {term for chain in drawn for term in chain.terms}
    assert terms == set(range(2, 20)) | set(range(-19, -1))


@pytest.mark.parametrize(("value", "possible"), [(0, range(2, 20)), (99, range(-19, -1)), (1, range(2, 20))])
def test_draw_term_at_the_borders(value: int, possible: range) -> None:
    rng = random.Random(0)
    assert {draw_term(rng, value) for _ in range(1_000)} == set(possible)


def test_training_chains_are_trained_on() -> None:
    rng = random.Random(2)
    assert all(may_train_on(draw_training_chain(rng, 2, 4)) for _ in range(500))
