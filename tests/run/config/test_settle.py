"""An option's values for one stage reach that stage alone; traces without a reader are refused."""

from __future__ import annotations

import pytest

from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import REAL_CONFIGS


@pytest.mark.parametrize(
    "given",
    ["[a.jsonl]", "{folder: a, name: b}", "{name: b}", "{}", "[]", "{traces: {_target_: a.B}}", "[{_target_: a.B}]"],
)
def test_what_names_no_reader_of_traces_is_refused(given: str) -> None:
    with composing(REAL_CONFIGS), pytest.raises(InvalidInput, match=r"^data.traces=.* by data.traces.file=FILE$"):
        compose_stage(["stage=distill", f"data.traces={given}"])


def test_debug_gives_a_stage_what_it_alone_needs() -> None:
    """Two steps teach nothing that could be sampled: other rows stand in; and a comparison measures a handful."""
    with composing(REAL_CONFIGS):
        sample = compose_stage(["stage=sample", "debug=fast"]).config.stage
        assert sample.sources.general.domain == "general" and sample.shares is None and sample.max_steps == 2
        compare = compose_stage(["stage=compare", "debug=fast"]).config.stage
        assert (compare.evaluation.problems, compare.requests) == (4, 2)
        typed = compose_stage(
            ["stage=compare", "debug=fast", "stage.evaluation={problems: 9, samples: 1}"]
        ).config.stage
        assert (typed.evaluation.problems, typed.requests) == (9, 2)  # the command line has the last word
        pretrain = compose_stage(["stage=pretrain", "debug=fast"]).config
        assert "sources" not in pretrain.stage and "for_stage" not in pretrain
