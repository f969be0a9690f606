"""Matrices, systems, cases and congruences, taken apart."""

from __future__ import annotations

from r1_lightning.rewards.equality.layouts import Grid, as_named, as_system, read_congruence, read_grid


def test_grids() -> None:
    assert read_grid(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}") == Grid("matrix", "", (("1", "2"), ("3", "4")))
    assert read_grid(r"2\begin{bmatrix}1\\2\end{bmatrix}") == Grid("matrix", "2", (("1",), ("2",)))
    assert read_grid(r"(\begin{array}{cc}1&2\end{array})") == Grid("matrix", "", (("1", "2"),))
    assert read_grid(r"\begin{vmatrix}1\end{vmatrix}").kind == "determinant"  # type: ignore[union-attr]
    cases = read_grid(r"\begin{cases} x, & if x>0 \\ -x, & otherwise \end{cases}")
    assert cases == Grid("cases", "", (("x", "x>0"), ("-x", "")))
    assert read_grid("1,2") is None and read_grid(r"\begin{pmatrix}1&2") is None


def test_equations_side_by_side() -> None:
    assert as_system(r"\begin{cases}x=2\\y=1\end{cases}") == "x=2, y=1"
    assert as_system(r"\begin{pmatrix}1\\2\end{pmatrix}") == r"\begin{pmatrix}1\\2\end{pmatrix}"
    assert (
        as_named("(a,b)=(1,2)") == "a=1, b=2"
        and as_named("(1,2)") == "(1,2)"
        and as_named("f(x,y)=(1,2)") == "f(x,y)=(1,2)"
    )


def test_congruences() -> None:
    assert read_congruence(r"x\equiv 10\pmod 7") == read_congruence(r"x\equiv -4 \pmod{7}") == ("x", (3,), 7)
    assert read_congruence(r"x\equiv 4,1\pmod 5") == ("x", (1, 4), 5) and read_congruence("x\\equiv 3 ( mod 7)") == (
        "x",
        (3,),
        7,
    )
    assert read_congruence("x=3") is None and read_congruence(r"x\equiv 3\pmod 0") is None
