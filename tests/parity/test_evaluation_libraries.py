"""Our pass@1, pass@k and standard errors beside those of lighteval and inspect-ai, on the same records.

The numbers below were printed in an environment with lighteval 0.13.0 and inspect-ai 0.3.285, by `python figures.py samples.jsonl`.
The records have a line {"question": q, "strict": ...} for each sample of `SCORES`; the program reads them as rows of 0.0 and 1.0,
takes the questions' means, and calls

    lighteval    metrics.utils.stderr.mean_stderr(means), metrics.metrics_sample.PassAtK(k, n=8).pass_at_k(row)
    inspect_ai   scorer.mean() and scorer.stderr() of scores reduced by mean_score() and by pass_at(k),
                 scorer.stderr(cluster="question") of all samples
"""

from __future__ import annotations

import numpy as np
import pytest

from r1_lightning.functional.intervals import pass_at_k
from r1_lightning.functional.uncertainty import standard_error_of_questions

# 12 questions of 8 samples, of which 0, 1, 2, 2, 3, 4, 7, 7, 6, 6, 8 and 8 are right.
SCORES = [[(q * q + 5 * s * s + 3 * q * s) % 11 < q for s in range(8)] for q in range(12)]

LIGHTEVAL_MEAN, LIGHTEVAL_STDERR = 0.5625, 0.10264033261241841
LIGHTEVAL_PASS_AT = {
    1: (0.5625, 0.10264033261241841),
    2: (0.7113095238095237, 0.09971146660159433),
    4: (0.8321428571428572, 0.08743095164119852),
    8: (0.9166666666666666, 0.08333333333333331),
}
INSPECT_MEAN, INSPECT_STDERR, INSPECT_CLUSTERED = 0.5625, 0.10264033261241841, 0.1026403326124184
INSPECT_PASS_AT = {1: 0.5625, 2: 0.7113095238095237, 4: 0.8321428571428572, 8: 0.9166666666666666}


def test_pass_at_1_and_its_standard_error() -> None:
    assert [sum(row) for row in SCORES] == [0, 1, 2, 2, 3, 4, 7, 7, 6, 6, 8, 8]
    mean, error = float(np.mean(SCORES)), standard_error_of_questions(SCORES)
    assert mean == pytest.approx(LIGHTEVAL_MEAN, abs=1e-12) == pytest.approx(INSPECT_MEAN, abs=1e-12)
    for theirs in (LIGHTEVAL_STDERR, INSPECT_STDERR, INSPECT_CLUSTERED):
        assert error == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_pass_at_k_and_its_standard_error(k: int) -> None:
    ours = np.array([[pass_at_k(8, sum(row), k)] for row in SCORES])
    mean, error = LIGHTEVAL_PASS_AT[k]
    assert float(ours.mean()) == pytest.approx(mean, abs=1e-12)
    assert float(ours.mean()) == pytest.approx(INSPECT_PASS_AT[k], abs=1e-12)
    assert standard_error_of_questions(ours) == pytest.approx(error, abs=1e-12)
