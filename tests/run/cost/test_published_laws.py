"""The papers' constants as a file, and our own from the report that measured them."""

from __future__ import annotations

import json

import pytest

from r1_lightning.functional.scaling_laws import KaplanLaw, LossLaw
from r1_lightning.run.cost.published_laws import FIT, constants, our_law, published_laws
from r1_lightning.types.errors import InvalidInput

FITTED = {"irreducible": 0.9, "a_scale": 10.0, "b_scale": 20.0, "alpha": 0.5, "beta": 0.25}


def test_the_laws_are_the_papers():
    laws = published_laws()
    assert list(laws) == ["kaplan", "hoffmann", "besiroglu"]
    assert laws["kaplan"] == KaplanLaw(6.4e13, 1.8e13, 0.076, 0.103, 1.3e9, 0.73)
    assert laws["hoffmann"] == LossLaw(1.69337, 406.40, 410.72, 0.33917084, 0.2849083)
    assert laws["besiroglu"] == LossLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)


def test_every_constant_has_a_source():
    assert all(row["law"].capitalize() in row["source"] for row in constants())


def test_ours_is_the_reports(tmp_path):
    path = tmp_path / FIT
    path.parent.mkdir(parents=True)
    assert our_law([tmp_path]) is None
    path.write_text(json.dumps({"law": FITTED, "more": 1}))
    assert our_law([tmp_path / "elsewhere", tmp_path]) == LossLaw(0.9, 10.0, 20.0, 0.5, 0.25)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"law": {"alpha": 1}}', '{"law": null}'])
def test_a_file_without_a_fit_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / FIT
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InvalidInput, match="it holds no fitted law"):
        our_law([tmp_path])
