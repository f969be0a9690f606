"""The command that plans a training by scaling laws: rows by hand, every way to ask, one line for what cannot be."""

from __future__ import annotations

import sys

import pytest

from r1_lightning.functional.scaling_laws import LossLaw
from r1_lightning.run.cost import scaling_plan
from r1_lightning.run.cost.scaling_plan import Plan, Rate, lines, main, plan_of

# alpha = beta = 1, A = 4 B: N = 2 (C/6)^(1/2), D = (C/6)^(1/2) / 2.
LAW = LossLaw(1.0, 4.0, 1.0, 1.0, 1.0)


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["r1 plan", *arguments])
    monkeypatch.setattr(scaling_plan, "our_law", lambda: None)
    code = main()
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("flops", "parameters", "tokens", "plan"),
    [
        (600.0, None, None, Plan(20.0, 5.0, 1.4)),  # 1 + 4/20 + 1/5
        (None, 20.0, None, Plan(20.0, 5.0, 1.4)),
        (None, None, 5.0, Plan(20.0, 5.0, 1.4)),
        (None, 4.0, 2.0, Plan(4.0, 2.0, 2.5)),  # 1 + 4/4 + 1/2
        (600.0, 50.0, None, Plan(50.0, 2.0, 1.58)),  # 1 + 4/50 + 1/2
        (600.0, None, 10.0, Plan(10.0, 10.0, 1.5)),  # 1 + 4/10 + 1/10
    ],
)
def test_every_way_to_ask_by_hand(flops, parameters, tokens, plan):
    found = plan_of(LAW, flops, parameters, tokens)
    assert (found.parameters, found.tokens, found.loss) == pytest.approx((plan.parameters, plan.tokens, plan.loss))


def test_a_row_by_hand():
    """600 FLOPs on an H100 at half of 989.5e12 FLOP/s: 600 / (494.75e12 x 3600) = 3.37e-16 hours, at 2 each."""
    given = {"flops": 600.0, "parameters": None, "tokens": None}
    head, row, missing, *_ = lines({"law": LAW, "ours": None}, given, Rate("h100", 0.5, 2.0))
    assert head.split() == ["law", "N", "D", "D/N", "C", "loss", "h100", "hours", "cost"]
    assert row.split() == ["law", "20", "5", "0.25", "600", "1.400", "3.37e-16", "6.74e-16"]
    assert missing.startswith("ours       not measured: ")


def test_the_compute_of_chinchilla(capsys, monkeypatch):
    """Kaplan would have made it 11 times as large as Besiroglu; 5.76e23 / (0.35 x 989.5e12 x 3600) = 4.62e5 hours."""
    code, out, _ = said(capsys, monkeypatch, "--flops", "5.76e23")
    rows = [line.split() for line in out.splitlines()[1:5]]
    assert code == 0
    assert rows[0] == ["kaplan", "8.04e+11", "1.19e+11", "0.148", "5.76e+23", "1.703", "4.62e+05"]
    assert rows[1] == ["hoffmann", "4.04e+10", "2.38e+12", "58.9", "5.76e+23", "1.918", "4.62e+05"]
    assert rows[2] == ["besiroglu", "7.22e+10", "1.33e+12", "18.4", "5.76e+23", "1.974", "4.62e+05"]
    assert rows[3][:3] == ["ours", "not", "measured:"]


def test_the_hours_of_deepseek_v3_are_its_compute(capsys, monkeypatch):
    """2.664e6 hours of an H800 at 0.35: 3.32e24 FLOPs; its 37e9 weights and 14.8e12 tokens are 3.29e24."""
    _, out, _ = said(capsys, monkeypatch, "--gpu-hours", "2.664e6", "--gpu", "h800", "--parameters", "37e9")
    row = out.splitlines()[2].split()
    assert row[1:5] == ["3.7e+10", "1.5e+13", "404", "3.32e+24"] and row[6] == "2.66e+06"
    _, out, _ = said(capsys, monkeypatch, "--parameters", "37e9", "--tokens", "14.8e12", "--mfu", "0.5", "--price", "2")
    # 3.2856e24 / (0.5 x 989.5e12 x 3600) = 1.845e6 hours, at 2 each 3.69e6.
    row = out.splitlines()[3].split()
    assert row[1:5] == ["3.7e+10", "1.48e+13", "400", "3.29e+24"] and row[6:] == ["1.84e+06", "3.69e+06"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "arguments='none' is not allowed: one of --flops"),
        (("--flops", "1e20", "--gpu-hours", "3"), "arguments='--flops --gpu-hours' is not allowed"),
        (("--flops", "1e20", "--tokens", "3", "--parameters", "3"), "arguments='--flops --parameters --tokens'"),
        (("--flops", "nan"), "--flops=nan is not allowed"),
        (("--tokens", "1e300"), "--tokens=1e+300 is not allowed"),
        (("--gpu-hours", "0"), "--gpu-hours=0.0 is not allowed"),
        (
            ("--flops", "1e20", "--mfu", "35"),
            "--mfu=35.0 is not allowed: it must be a number above 0.0 and at most 1.0",
        ),
        (("--flops", "1e20", "--price", "-1"), "--price=-1.0 is not allowed"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, monkeypatch, arguments, line):
    code, out, err = said(capsys, monkeypatch, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {line}") and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("--flops", "1"), ("--tokens", "1e30"), ("--parameters", "1"), ("--gpu-hours", "1e-9")]
)
def test_the_ends_of_the_range_have_a_plan(capsys, monkeypatch, arguments):
    assert said(capsys, monkeypatch, *arguments)[0] == 0


def test_less_than_one_weight_or_token_is_no_plan():
    """C = 6: N = 2 and D = 1/2. C = 24: N = 4 and D = 1."""
    rate, rest = Rate("h100", 0.5, None), {"parameters": None, "tokens": None}
    assert list(lines({"law": LAW}, {"flops": 6.0, **rest}, rate))[1] == (
        "law        no plan: it would have less than one weight or token"
    )
    assert list(lines({"law": LAW}, {"flops": 24.0, **rest}, rate))[1].split()[:3] == ["law", "4", "1"]
