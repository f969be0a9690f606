r"""Mathematical references, each with an answer that is certainly wrong.

A mutant is one small change of the numbers of a form (plus one, the sign, reversed digits, two numbers swapped), written in any of
the form's spellings, and kept only if its value differs: exactly, or for floats by far more than rounding. Other mutants do not
come from numbers: a relation in place of a value, several answers at once, a derivative, a list with one member lost or doubled,
a set in place of a point, the question's own expression.

Every pair is a function of (seed, form, number), so that adding or removing forms does not change the others.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from tests.rewards.equality.reference_forms import (
    ANY,
    CHOICES,
    FEW,
    FUNCTIONS,
    LENGTHS,
    RELATIONS,
    SHAPES,
    SOME,
    TRIGONOMETRY,
    TWO,
    UNITS,
    Form,
    Numbers,
    at_points,
    bend,
    chinese,
    decimal,
    exact,
    extreme,
    factored,
    in_base,
    joined,
    least_power,
    matrix,
    measured,
    multiplied,
    numbers,
    pick,
    polynomial,
    rising,
    scaled,
    shown,
    step,
    surd,
    wave,
    where,
)  # fmt: skip


class Pair(NamedTuple):
    """A reference and an answer that is not it; `question` is what was asked where that decides."""

    kind: str
    reference: str
    mutant: str
    question: str = "?"


# fmt: off
FORMS = (
    Form("integer", numbers((-9_999, 99_999)), (shown("<0>"),), exact),
    Form("thousands", numbers((10_000, 9_999_999)), ("{:,}".format, shown("<0>")), where(lambda n: n > 999)),
    Form("fraction", numbers(ANY, SOME), (shown(r"\frac{<0>}{<1>}"), shown("<0>/<1>"), shown(r"\dfrac{<0>}{<1>}")), Fraction),
    Form("decimal", numbers((101, 99_999), (1, 6)), (decimal,), where(lambda n, k: n > 0 < k < 9, lambda n, k: Fraction(n, 10**k))),
    Form("mixed number", numbers((1, 20), (1, 9), (10, 20)), (shown(r"<0>\frac{<1>}{<2>}"), shown("<0> <1>/<2>")),
         where(lambda a, b, c: a > 0 < b < c, lambda a, b, c: a + Fraction(b, c))),
    Form("percentage", numbers((1, 99)), (shown(r"<0>\%"), shown("<0>%")), where(lambda n: n > 0)),
    Form("price", numbers((1, 900), TWO), (shown(r"\$<0>.<1>"),), where(lambda a, b: a >= 0 and 10 <= b < 100)),
    Form("scientific", numbers((2, 99), (-20, 20)), (shown(r"<0>\times10^{<1>}"),), lambda m, k: m * Fraction(10)**k),
    Form("repeating decimal", numbers((10, 98)), (shown(r"0.\overline{<0>}"),), where(lambda n: 9 < n < 99)),
    Form("large number", numbers((2, 12), (60, 200), (1, 9)), (shown("<0>^{<1>}<+2>"),),
         where(lambda a, n, c: a > 1 and 0 < n < 999 and c != 0, lambda a, n, c: a**n + c)),
    Form("power", numbers((2, 99), (300, 3_000)), (shown("<0>^{<1>}"),), where(lambda a, n: n > 0, least_power)),
    Form("factorial", numbers((3, 40)), (shown("<0>!"),), where(lambda n: n > 2)),
    Form("choice of some", numbers((8, 40), (2, 7)), (shown(r"\binom{<0>}{<1>}"), shown(r"\dbinom{<0>}{<1>}")),
         where(lambda n, k: 0 < k < n, math.comb)),
    Form("root", numbers((2, 60), (2, 7)), (shown(r"\sqrt[<1>]{<0>}"), shown("<0>^{1/<1>}")),
         where(lambda n, k: k > 1, lambda n, k: least_power(n, Fraction(1, k)))),
    Form("surd", numbers(ANY, (2, 9), (2, 60), (2, 12)), (shown(r"\frac{<0>+<1>\sqrt{<2>}}{<3>}"),), surd),
    Form("pi", numbers((1, 60), SOME), (shown(r"\frac{<0>\pi}{<1>}"), shown(r"\frac{<0>}{<1>}\pi")), Fraction),
    Form("logarithm", numbers((2, 30), (2, 60)), (shown(r"\log_{<0>}{<1>}"), shown(r"\frac{\ln <1>}{\ln <0>}")),
         lambda b, n: math.log(n) / math.log(b)),
    Form("exponential", numbers((2, 9), (2, 9)), (shown("<0>e^{<1>}"),), lambda a, n: a * math.exp(n)),
    Form("complex number", numbers(ANY, SOME), (shown("<0><+1>i"),), where(lambda a, b: b != 0)),
    Form("number in a base", numbers((6, 9), (1, 5), (0, 5), (0, 5)), (shown("<1><2><3>_{<0>}"), shown("<1><2><3>_<0>")), in_base),
    Form("Chinese numeral", numbers(TWO), (chinese,), where(lambda n: 10 < n < 100)),
    Form("measure", numbers((2, 999), (0, 6)),
         (lambda n, u: rf"{n}\text{{ {pick(UNITS, u)}}}", lambda n, u: f"{n} {pick(UNITS, u)}"), measured),
    Form("area", numbers(TWO, (0, 3)), (lambda n, u: rf"{n}\text{{ {pick(LENGTHS, u)}}}^2",),
         where(lambda n, u: 0 <= u < 4, lambda n, u: measured(n, u, 2))),
    Form("angle", numbers((1, 359)), (shown(r"<0>^\circ"), shown("<0>°")), where(lambda n: n > 0)),
    Form("time", numbers((1, 12), (10, 59)), (shown("<0>:<1>"),), where(lambda h, m: 0 < h < 13 and 9 < m < 60)),
    Form("ratio", numbers(TWO, (2, 10)), (shown("<0>:<1>"),), where(lambda a, b: a > 0 < b, Fraction)),
    Form("letter", numbers((0, 4)), (lambda n: pick(CHOICES, n), lambda n: f"({pick(CHOICES, n)})"), exact),
    Form("word", numbers((0, 4)), (lambda n: pick(SHAPES, n), lambda n: rf"\text{{{pick(SHAPES, n)}}}"), exact),
    Form("polynomial", numbers((1, 9), FEW, FEW, (-99, 99)), (polynomial,), exact),
    Form("factors", numbers(FEW, FEW, FEW), (factored, lambda *roots: polynomial(*multiplied(*roots))), multiplied),
    Form("quotient", numbers((2, 20), FEW), (lambda a, b: rf"\frac{{{a}}}{{{polynomial(1, b)}}}",),
         at_points(lambda x, a, b: a / (x + b))),
    Form("absolute value", numbers((0, 2), (1, 40)), (bend,),
         where(lambda m, a: a > 0, at_points(lambda x, m, a: pick((a - x, abs(x - a), x - a), m)))),
    Form("extreme", numbers((1, 2), (2, 60)), (extreme,), at_points(lambda x, m, a: pick((x, min(x, a), max(x, a), a), m))),
    Form("step", numbers((0, 2), (2, 9)), (step,),
         where(lambda m, a: a > 1, at_points(lambda x, m, a: pick((math.floor(a * x), a * x, math.ceil(a * x)), m)))),
    Form("trigonometry", numbers((2, 9), (0, 3), (2, 9)),
         (lambda a, f, b: rf"{a}\{pick(TRIGONOMETRY, f)}({b}x)", lambda a, f, b: rf"{a}\{pick(TRIGONOMETRY, f)} {b}x"),
         at_points(wave)),
    Form("root of a function", numbers((1, 40), (2, 9)), (shown(r"\sqrt{<1>x<+0>}"),),
         at_points(lambda x, a, b: math.sqrt(b * x + a))),
    Form("function", numbers((0, 5), FEW, FEW, FEW), (lambda f, *c: f"{pick(FUNCTIONS, f)}(x)={polynomial(*c)}",), exact),
    Form("value of a function", numbers((0, 5), FEW, ANY), (lambda f, a, b: f"{pick(FUNCTIONS, f)}({a})={b}",), exact),
    Form("slope", numbers((0, 1), (2, 9), (2, 9)),
         (lambda k, a, n: pick((r"\frac{dy}{dx}", r"\frac{d^2y}{dx^2}"), k) + f"={a}x^{{{n}}}",),
         where(lambda k, a, n: a != 0 and n > 1)),
    Form("cases", numbers((2, 9), FEW, FEW), (lambda a, b, c: rf"\begin{{cases}}{polynomial(a, b)}&x<0\\{c}&x\ge 0\end{{cases}}",),
         at_points(lambda x, a, b, c: a * x + b if x < 0 else c)),
    Form("line", numbers((2, 9), (2, 9), (1, 60)), (shown("<0>x<+1>y=<2>"), lambda a, b, c: f"{a}x{b:+}y{-c:+}=0"),
         where(lambda a, b, c: b != 0, scaled)),
    Form("slope and intercept", numbers((1, 9), ANY), (lambda m, b: f"y={polynomial(m, b)}",), exact),
    Form("circle", numbers((1, 9), (1, 9), (2, 99)), (shown("(x-<0>)^2+(y-<1>)^2=<2>"),),
         where(lambda a, b, c: a > 0 < b and c > 0)),
    Form("congruence", numbers((0, 30), (3, 60)), (shown(r"x\equiv <0>\pmod{<1>}"),),
         where(lambda a, m: m > 1, lambda a, m: (a % m, m))),
    Form("inequality", numbers(ANY, (0, 3)), (lambda a, o: f"x{pick(RELATIONS, o)}{a}",), exact),
    Form("interval", rising((0, 1), (0, 1)), (lambda a, b, left, right: f"{pick('([', left)}{a},{b}{pick(')]', right)}",), exact),
    Form("union", rising((0, 1), (0, 1)), (lambda a, b, r, s: rf"(-\infty,{a}{pick(')]', r)}\cup{pick('([', s)}{b},\infty)",),
         where(lambda a, b, *_: a < b)),
    Form("set", numbers(ANY, ANY, ANY), (joined(",", r"\{%s\}"),), lambda *members: frozenset(members)),
    Form("list", numbers(TWO, TWO, FEW, FEW), (joined(", "),), lambda *members: tuple(sorted(members))),
    Form("point", numbers(ANY, ANY), (joined(",", "(%s)"), joined(", ", r"\left(%s\right)")), exact),
    Form("triple", numbers(FEW, FEW, FEW), (joined(",", "(%s)"),), exact),
    Form("vector", numbers(FEW, FEW, FEW), (joined(",", r"\langle %s\rangle"),), exact),
    Form("matrix", numbers(FEW, FEW, FEW, FEW), (matrix("p"), matrix("b")), exact),
    Form("two points", numbers(FEW, FEW, FEW, FEW), (shown("(<0>,<1>),(<2>,<3>)"),),
         lambda a, b, c, d: tuple(sorted([(a, b), (c, d)]))),
    Form("both signs", numbers(ANY, (1, 30)), (shown(r"<0>\pm <1>"),), where(lambda a, b: b > 0)),
    Form("sequence", numbers((2, 9), ANY), (lambda a, b: f"a_n={polynomial(a, b, name='n')}",), exact),
)
# fmt: on


def differ(one: Any, other: Any) -> bool:
    """True only where two meanings are certainly not the same; None is a point without a value, which decides nothing."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return any(map(differ, one, other))
    if one is None or other is None:
        return False
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) > 1e-6 * (1 + abs(one) + abs(other))
    return bool(one != other)


def changed(parts: Numbers, rng: random.Random) -> Numbers:
    """One small change: one more or less, the sign, digits turned round, or two numbers changed over."""
    out, place = list(parts), rng.randrange(len(parts))
    turned = int(str(abs(parts[place]))[::-1]) * (1 if parts[place] >= 0 else -1)
    out[place] = rng.choice((parts[place] + 1, parts[place] - 1, -parts[place], turned))
    if rng.random() < 0.2:
        other = rng.randrange(len(parts))
        out = list(parts)
        out[place], out[other] = out[other], out[place]
    return tuple(out)


def of_form(form: Form, rng: random.Random) -> Pair | None:
    """A reference of this form and a mutant of it; None where the draw gave none."""
    try:
        parts = form.draw(rng)
        meaning, reference = form.means(*parts), rng.choice(form.writes)(*parts)
        other = changed(parts, rng)
        if not differ(meaning, form.means(*other)):
            return None
        return Pair(form.kind, reference, rng.choice(form.writes)(*other))
    except (ValueError, ArithmeticError):  # a number that the form has no meaning for
        return None


def relation_for_a_value(rng: random.Random) -> Pair:
    """A truth, a range or a bet names the value without answering with it alone."""
    v = rng.randint(2, 999)
    relations = ("0=0", f"{v}={v}", f"{v - 1}<{v}", rf"{v}\ne {v + 1}")
    bets = (rf"{v}\pm 1", f"{v} or {v + 1}", f"{v}, {v + 1}", rf"\{{{v},{v + 1}\}}", f"[{v - 1},{v + 1}]")
    return Pair("relation for a value", str(v), rng.choice(relations + bets))


def another_truth(rng: random.Random) -> Pair:
    """A sum that is right, or nearly, and not the sum that was asked for."""
    a, b, c = rng.randint(2, 99), rng.randint(2, 99), rng.randint(1, 9)
    mutants = (f"{a}+{b + c}={a + b + c}", f"{a}+{b}={a + b + c}", f"{a}<{a + b}", "0=0", "1=2")
    return Pair("another truth", f"{a}+{b}={a + b}", rng.choice(mutants))


def derivative(rng: random.Random) -> Pair:
    """A polynomial and its derivative, whose degree is another, either for the other."""
    a, b, c, d = rng.randint(1, 9), *(rng.randint(-9, 9) for _ in range(3))
    both = [polynomial(a, b, c, d), polynomial(3 * a, 2 * b, c)]
    return Pair("derivative", *rng.sample(both, 2))


def member_lost_or_doubled(rng: random.Random) -> Pair:
    """A list without braces says how often each member comes."""
    members = [rng.randint(-20, 20) for _ in range(rng.randint(2, 5))]
    other = list(members)
    place = rng.randrange(len(members))
    if rng.random() < 0.5 and len(members) > 2:
        del other[place]
    else:
        other.append(other[place])
    return Pair("member lost or doubled", ", ".join(map(str, members)), ", ".join(map(str, other)))


def another_bracket(rng: random.Random) -> Pair:
    """A triple is no set, and a column is no row."""
    a, b, c = rng.sample(range(-30, 31), 3)
    text = f"{a},{b},{c}"
    row, column = text.replace(",", "&"), text.replace(",", r"\\")
    frame = r"\begin{pmatrix}%s\end{pmatrix}"
    pairs = [(f"({text})", rf"\{{{text}\}}"), (frame % row, frame % column), (f"({text})", f"(({a},{b}),{c})")]
    return Pair("another bracket", *rng.sample(rng.choice(pairs), 2))


def copied_question(rng: random.Random) -> Pair:
    """The question's own expression for its value, which is worked out here in whole numbers or fractions."""
    a, b, c = rng.randint(2, 60), rng.randint(2, 40), rng.randint(2, 9)
    total = Fraction(1, a) + Fraction(1, b)
    asked = (
        (f"{a}+{b}+{c}", str(a + b + c)),
        (rf"{a}\cdot {b}-{c}", str(a * b - c)),
        (rf"\frac{{1}}{{{a}}}+\frac{{1}}{{{b}}}", rf"\frac{{{total.numerator}}}{{{total.denominator}}}"),
        (f"{b}^{c}", str(b**c)),
        (rf"\sqrt{{{a * a * 7}}}", rf"{a}\sqrt{{7}}"),
        (rf"\binom{{{b + 2}}}{{2}}", str(math.comb(b + 2, 2))),
        (rf"\log_{{{c}}}{{{c**3}}}", "3"),
        (f"(x+{a})(x-{b})", polynomial(1, a - b, -a * b)),
        (rf"\sum_{{k=1}}^{{{a}}}k", str(a * (a + 1) // 2)),
    )
    expression, value = rng.choice(asked)
    return Pair("copied question", value, expression, f"{rng.choice(('Compute', 'Simplify', 'Find'))} ${expression}$.")


MADE: tuple[Callable[[random.Random], Pair], ...] = (
    relation_for_a_value, another_truth, derivative, member_lost_or_doubled, another_bracket, copied_question,
)  # fmt: skip


def pairs_of(seed: int, name: str, make: Callable[[random.Random], Pair | None]) -> Iterator[Pair | None]:
    """What one maker gives, number after number."""
    number = 0
    while True:
        yield make(random.Random(f"{seed}/{name}/{number}"))
        number += 1


def mutated_pairs(seed: int, count: int) -> list[Pair]:
    """`count` pairs, all different, from every form in turn."""
    makers = [pairs_of(seed, form.kind, lambda rng, form=form: of_form(form, rng)) for form in FORMS]  # type: ignore[misc]
    makers += [pairs_of(seed, make.__name__, make) for make in MADE]
    found: dict[Pair, None] = {}
    while len(found) < count:
        for maker in makers:
            if (pair := next(maker)) is not None:
                assert pair.reference != pair.mutant, pair
                found[pair] = None
    return list(found)[:count]


def mutated_numbers(reference: str) -> list[str]:
    """Answers that are not this whole number: its neighbours, sign, digits turned round, tenfold, and what is no number."""
    n = int(reference.replace(",", ""))
    others = {n + 1, n - 1, -n, 10 * n, int(str(abs(n))[::-1]), n + 1_000} - {n}
    return [*map(str, sorted(others)), f"{n}={n}", f"{n} or {n + 1}", rf"{n}\pm 1", f"{n}, {n + 1}"]
