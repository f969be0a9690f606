"""The command `r1 plan`: for a budget, how many parameters and tokens, what loss and what cost, by published scaling laws and ours.

    r1 plan --flops 5.76e23                     the best N and D for that compute
    r1 plan --gpu-hours 2.664e6 --gpu h800      the same, for the compute of so many hours of a GPU
    r1 plan --parameters 7e10                   the budget at which so many parameters are the best; --tokens likewise
    r1 plan --parameters 7e10 --tokens 1.4e12   the loss of a model that is settled

Nothing is run: C = 6 N D, and a GPU computes its peak of dense BF16 times --mfu. N is the weights that work on a token.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from r1_lightning.functional.scaling_laws import tokens_for, training_flops
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.cost.gpus import GPU_FLOPS
from r1_lightning.run.cost.published_laws import FIT, OURS, Law, our_law, published_laws
from r1_lightning.types.errors import require, require_number

HOUR_S = 3600
# DeepSeek-V3 (arXiv:2412.19437, Table 1): 6 x 37e9 weights x 14.8e12 tokens in 2.664e6 hours of an H800 are 0.35 of its peak.
DEFAULT_MFU = 0.35
GIVEN = ("flops", "gpu_hours", "parameters", "tokens")
MOST = 1e30  # of each, so that every power of it is a number
NOTE = """\
N: weights that work on a token (Kaplan's without embeddings); D: tokens; C = 6 N D; loss: nats per token of the law's own text and
tokenizer, so losses of one law compare, not those of two; far beyond the sizes that a law was fitted on, all are guesses"""


@dataclass(frozen=True)
class Plan:
    """One row: N, D and the loss that a law expects of them."""

    parameters: float
    tokens: float
    loss: float

    @property
    def flops(self) -> float:
        return training_flops(self.parameters, self.tokens)


def plan_of(law: Law, flops: float | None, parameters: float | None, tokens: float | None) -> Plan:
    """The best plan of `law` for one given number, or the loss of both N and D given.

    Beyond C alone, N or D alone means: the budget at which it is the best one.
    """
    if parameters is not None and tokens is not None:
        return Plan(parameters, tokens, law.loss(parameters, tokens))
    if parameters is not None:
        flops = law.flops_of_parameters(parameters) if flops is None else flops
    elif tokens is not None:
        parameters = law.best_parameters(law.flops_of_tokens(tokens)) if flops is None else tokens_for(flops, tokens)
    else:
        assert flops is not None
        parameters = law.best_parameters(flops)
    tokens = tokens if flops is None else tokens_for(flops, parameters)
    assert tokens is not None
    return Plan(parameters, tokens, law.loss(parameters, tokens))


@dataclass(frozen=True)
class Rate:
    """What an hour of a GPU computes and costs; without a price no cost is shown."""

    gpu: str
    mfu: float
    price: float | None

    @property
    def flops_per_hour(self) -> float:
        return GPU_FLOPS[self.gpu] * self.mfu * HOUR_S


def lines(laws: Mapping[str, Law | None], given: Mapping[str, float | None], rate: Rate) -> Iterator[str]:
    """The table: a row per law."""
    heads = ["law", "N", "D", "D/N", "C", "loss", f"{rate.gpu} hours", *(["cost"] if rate.price is not None else [])]
    yield _row(heads)
    for name, law in laws.items():
        if law is None:
            yield f"{name:<11}not measured: there is no {FIT} in this folder or the checkout"
            continue
        plan = plan_of(law, given["flops"], given["parameters"], given["tokens"])
        if min(plan.parameters, plan.tokens) < 1:
            yield f"{name:<11}no plan: it would have less than one weight or token"
            continue
        hours = plan.flops / rate.flops_per_hour
        cells = [f"{plan.parameters:.3g}", f"{plan.tokens:.3g}", f"{plan.tokens / plan.parameters:.3g}"]
        cells += [f"{plan.flops:.3g}", f"{plan.loss:.3f}", f"{hours:.3g}"]
        yield _row([name, *cells, *([f"{hours * rate.price:.3g}"] if rate.price is not None else [])])
    yield NOTE
    yield f"an hour of {rate.gpu}: {GPU_FLOPS[rate.gpu] / 1e12:.4g} TFLOP/s of dense BF16, of which {rate.mfu:.0%} compute (--mfu)"


def _row(cells: list[str]) -> str:
    return (f"{cells[0]:<11}" + "".join(f"{cell:>12}" for cell in cells[1:])).rstrip()


def main() -> int:
    """The command line of `r1 plan`."""
    return run_as_command(_print)


def _print() -> int:
    options = _parser().parse_args()
    given = {name: getattr(options, name) for name in GIVEN}
    for name, value in given.items():
        if value is not None:
            require_number(
                f"--{name.replace('_', '-')}", value, 0.0 if name == "gpu_hours" else 1.0, MOST, name == "gpu_hours"
            )
    require_number("--mfu", options.mfu, 0.0, 1.0, open_minimum=True)
    if options.price is not None:
        require_number("--price", options.price, 0.0)
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    both = {"--flops", "--gpu-hours"} <= set(named)
    allowed = "one of --flops, --gpu-hours, --parameters and --tokens, or a budget with N or D, or N with D"
    require(1 <= len(named) <= 2 and not both, "arguments", " ".join(named) or "none", allowed)
    rate = Rate(options.gpu, options.mfu, options.price)
    if given["gpu_hours"] is not None:
        given["flops"] = given["gpu_hours"] * rate.flops_per_hour
    for line in lines({**published_laws(), OURS: our_law()}, given, rate):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="For a budget: how many parameters and tokens, what loss and what cost, by scaling laws.",
        epilog="Examples: --flops 5.76e23; --gpu-hours 2.664e6 --gpu h800; --parameters 7e10 --tokens 1.4e12",
    )
    add = parser.add_argument
    add("--flops", type=float, metavar="C", help="compute of the training")
    add("--gpu-hours", type=float, metavar="HOURS", help="in place of --flops: hours of --gpu, all GPUs together")
    add("--parameters", type=float, metavar="N", help="weights that work on a token")
    add("--tokens", type=float, metavar="D", help="tokens of the training")
    add("--gpu", choices=list(GPU_FLOPS), default="h100", help="the GPU whose hours are counted (h100)")
    add(
        "--mfu",
        type=float,
        default=DEFAULT_MFU,
        help=f"share of its peak that computes, 0..1 ({DEFAULT_MFU}, as DeepSeek-V3's figures give)",
    )
    add("--price", type=float, help="of a GPU's hour, in any currency: adds a column")
    return parser
