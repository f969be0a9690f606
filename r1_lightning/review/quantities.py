"""What a curve can be at all, by its name: the one place that knows which measures are shares and which have no upper end.

    a share                0 to 1      fractions, and the scores of accuracy, format and language (`rewards`)
    the reward             the weighted sum of such scores, by the run's weights; unknown where another score is added to them
    a length, a loss, an entropy       0 or more

Any other measure may be any number. A user's stage may log a loss below 0: who takes these limits for a curve looks first whether
its values keep to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

from r1_lightning.review.run_files import number_of

Limits = tuple[float, float]
SHARE, NOT_NEGATIVE, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
SCORES = ("accuracy", "format", "language")  # rewards whose scores are shares
KINDS = (
    ("*_fraction", SHARE),
    *((f"rollout/{score}_mean", SHARE) for score in SCORES),
    ("*_tokens_mean", NOT_NEGATIVE),
    ("policy/entropy", NOT_NEGATIVE),
    ("train/loss", NOT_NEGATIVE),
)
REWARD, WEIGHTS = "rollout/reward_mean", "reward.weights."


def limits(name: str, settings: Mapping[str, str]) -> Limits:
    """Return the lowest and the highest value that the metric `name` can have in a run of these settings."""
    if name == REWARD:
        return _reward(settings)
    return next((kind for pattern, kind in KINDS if fnmatchcase(name, pattern)), ANY)


def _reward(settings: Mapping[str, str]) -> Limits:
    names = [name for name in settings if name.startswith(WEIGHTS)]
    weights = [number_of(settings, name) for name in names if name.removeprefix(WEIGHTS) in SCORES]
    known = [weight for weight in weights if weight is not None]
    if not names or len(known) < len(names):
        return ANY
    return sum(weight for weight in known if weight < 0), sum(weight for weight in known if weight > 0)
