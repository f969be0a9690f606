"""How DeepSeek-R1 is measured on published benchmarks: k samples of a question at temperature 0.6, top-p 0.95.

R1v2 (arXiv:2501.12948v2, appendix D.1): k is 64 for AIME and GPQA, 16 for MATH and Codeforces, 8 for LiveCodeBench; v1 says that k
is "typically between 4 and 64" (section 3). No greedy decoding: it repeats itself more and varies more between checkpoints. All
questions of a benchmark are asked. The keys are options of configs/task.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

SAMPLING_TEMPERATURE = 0.6
TOP_P = 0.95
ALL_QUESTIONS = 1_000_000
FEWEST = 4  # where the paper gives no k: the fewest that it mentions

SAMPLES: Mapping[str, int] = MappingProxyType(
    {
        "aime24": 64,
        "aime25": 64,
        "gpqa": 64,
        "math500": 16,
        "livecodebench": 8,
        "cnmo24": FEWEST,
        "cmath": FEWEST,
        "gsm8k": FEWEST,
        "gsm8k_hub": FEWEST,
        "humaneval": FEWEST,
        "mbpp": FEWEST,
    }
)


def settings_of(benchmark: str | None) -> dict[str, Any]:
    """Return the fields of `EvaluationConfig` that R1's protocol sets for a benchmark; none for another task, or no name."""
    if benchmark is None or benchmark not in SAMPLES:
        return {}
    return {
        "problems": ALL_QUESTIONS,
        "samples": SAMPLES[benchmark],
        "sampling_temperature": SAMPLING_TEMPERATURE,
        "top_p": TOP_P,
    }
