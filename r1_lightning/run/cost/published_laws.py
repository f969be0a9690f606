"""Scaling laws by name: the papers', whose constants stand in `scaling_constants.csv` with their sources, and our own.

Ours is the fit that the report `scaling_laws` leaves beside its rows, so no number of it is written anywhere else. Before there is
a report, or without a checkout, there is none.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Protocol

from r1_lightning.functional.scaling_laws import KaplanLaw, LossLaw
from r1_lightning.types.errors import InvalidInput

CONSTANTS = "scaling_constants.csv"
OURS = "ours"
FIT = Path("reports", "scaling_laws", "fit.json")  # written by the report's recipe
CHECKOUT = Path(__file__).resolve().parents[3]
FORMS: Mapping[str, type[KaplanLaw] | type[LossLaw]] = {"kaplan": KaplanLaw, "hoffmann": LossLaw, "besiroglu": LossLaw}


class Law(Protocol):
    """What a plan asks of a law: the loss, and the best N for a budget and its inverses."""

    def loss(self, parameters: float, tokens: float) -> float: ...

    def best_parameters(self, flops: float) -> float: ...

    def flops_of_parameters(self, parameters: float) -> float: ...

    def flops_of_tokens(self, tokens: float) -> float: ...


def constants() -> list[dict[str, str]]:
    """The rows of the papers' constants: law, constant, value, source."""
    text = (files(__package__) / CONSTANTS).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def published_laws() -> dict[str, Law]:
    """The papers' laws by name, in the order of their years."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in constants():
        found[row["law"]][row["constant"]] = float(row["value"])
    return {name: form(**found[name]) for name, form in FORMS.items()}


def our_law(folders: Sequence[Path] | None = None) -> LossLaw | None:
    """The fit of our own ladder; None if no report of it is in the working directory or the checkout.

    Raises `InvalidInput` for a file that holds no such fit.
    """
    for folder in (Path.cwd(), CHECKOUT) if folders is None else folders:
        path = folder / FIT
        if path.is_file():
            try:
                fitted = json.loads(path.read_text(encoding="utf-8"))["law"]
                names = ("irreducible", "a_scale", "b_scale", "alpha", "beta")
                return LossLaw(*(float(fitted[name]) for name in names))
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInput(
                    f"{path}: it holds no fitted law ({error}); redraw the report scaling_laws"
                ) from error
    return None
