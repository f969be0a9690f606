"""The order in which TensorBoard's tab Custom Scalars shows a run's curves: what a person asks first stands first.

TensorBoard's other tab of curves sorts them by name: rules of the form come before the reward. A layout is a list of categories
with charts. It is made for the curves that a run has, so that no chart is empty; a curve that is in no chart of ours gets one at
the end. Curves with a band stand in a category of their own: within one, TensorBoard puts such charts last. Charts name their
curves by patterns, not by what a run happens to have: TensorBoard merges the layouts of all runs that it shows, and shows a chart
twice if two runs tell it differently.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

# Category -> its charts: title -> pattern of the whole names of its curves.
CHARTS: Mapping[str, Mapping[str, str]] = {
    "Reward": {
        "reward": "rollout/reward_mean",
        "reward by part": "rollout/(?!reward_|completion_tokens_|policy_logprob_|sampler_logprob_).*_mean",
        "spread of the reward (standard deviation)": "rollout/reward_std",
        "held-out accuracy, during training": "val/.*/(pass_at|cons_at)_.*",
        "held-out length, during training (tokens)": "val/.*/completion_tokens_mean",
        "held-out completions, during training (share)": "val/.*_(rate|consistency)",
        "groups without a signal (share)": "rollout/(zero_variance|unjudged)_fraction",
    },
    "Completions": {
        "length (tokens)": "rollout/completion_tokens_mean",
        "ended by itself (share; the rest was cut off)": "rollout/finished_fraction",
        "languages mixed (share)": "rollout/mixed_language_fraction",
        "broken rules of the form (share)": "format/.*",
        "verifier timeouts (share)": "rollout/verifier_timeouts",
    },
    "Policy": {
        "KL to the reference (nats per token)": "policy/kl_ref",
        "KL to the sampling policy (nats per token)": "policy/kl_old",
        "entropy (nats per token)": "policy/entropy",
        "clipped tokens (share)": "policy/(clip|importance_truncated)_fraction",
        "ratio to the sampling policy (mean)": "policy/(ratio|importance_weight)_mean",
        "log-prob of a token, sampler and policy (nats)": "rollout/(policy|sampler)_logprob_mean",
    },
    "Loss and optimiser": {
        "loss": "train/loss",
        "held-out, during training": "val/.*",
        "learning rate": "optim/lr",
        "gradient norm, before clipping": "train/grad_norm",
        "skipped steps": "train/skipped_step",
    },
    "Experts": {
        "fullest expert above the mean (share of the mean load)": "moe/max_violation",
        "balance loss": "train/balance_loss",
    },
    "Speed": {
        "tokens per second": "perf/tokens_per_s",
        "seconds per step": "perf/(step|evaluation)_s",
        "tokens per step": "perf/step_tokens",
        "groups sampled for a rollout": "rollout/drawn_groups",
        "drafted tokens accepted (share)": "rollout/draft_acceptance",
    },
}
# What a periodic evaluation measures is known when it ends, long after the layout was written: in RL completions, else a loss.
LATER = "held-out"
OF_RL = "Reward"
MORE = "More"
BAND = "Beside what is expected (shaded)"

EXPECTED = "expected/"

# As torch's `SummaryWriter.add_custom_scalars` takes it: category -> title -> [kind, names or patterns].
Charts = dict[str, list[str | list[str]]]
Layout = dict[str, Charts]


def layout(names: Collection[str], evaluates: bool = False, banded: Collection[str] = ()) -> Layout:
    """Return the layout of a run with the curves `names`, those of a periodic evaluation to come if it `evaluates`.

    Curves of `banded` stand first, over the band that their own run is expected to stay in, logged as `low_name` and `high_name`;
    they stand in their groups as well, where runs without a band are compared with them.
    """
    over_band: Charts = {}
    groups: Layout = {}
    rest = {name for name in names if not name.startswith(EXPECTED)}
    is_rl = any(name.startswith("rollout/") for name in names)
    for category, charts in CHARTS.items():
        for title, pattern in charts.items():
            shown = sorted(name for name in rest if re.fullmatch(pattern, name))
            rest -= {*shown}
            if shown or (evaluates and title.startswith(LATER) and (category == OF_RL) is is_rl):
                groups.setdefault(category, {})[title] = ["Multiline", [f"{pattern}$"]]
            for name in (name for name in shown if name in banded):
                which = title if len(shown) == 1 else name
                over_band[which] = ["Margin", [name, low_name(name), high_name(name)]]
    for name in sorted(rest):
        groups.setdefault(MORE, {})[name] = ["Multiline", [f"{re.escape(name)}$"]]
    # TensorBoard 2.21 draws charts with margins from the last to the first: this order puts the reward first there.
    return {BAND: dict(reversed(over_band.items())), **groups} if over_band else groups


def low_name(name: str) -> str:
    """Return the name of the lower edge of the band of the curve `name`."""
    return f"{EXPECTED}{name}/low"


def high_name(name: str) -> str:
    """Return the name of the upper edge of the band of the curve `name`."""
    return f"{EXPECTED}{name}/high"
