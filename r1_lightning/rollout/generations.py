"""Row operations on generations: none at all, selected rows, and several together; and how far apart their log-probs are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from r1_lightning.types.tensors import Generation


def no_rows() -> Generation:
    """Return a generation of no row, which a process without a prompt samples."""
    shape = (0, 0)
    numbers, routes = torch.zeros(shape), torch.zeros((0, 0, 0, 0), dtype=torch.long)
    ids = torch.zeros(shape, dtype=torch.long)
    return Generation(ids, ids.bool(), numbers, numbers, torch.zeros(0, dtype=torch.bool), routes, routes)


def rows_of(generation: Generation, rows: Tensor) -> Generation:
    """Return the selected rows of a generation, in the order of `rows`."""
    routes, prompt_routes = (x[:, rows] if x.shape[0] else x for x in (generation.routes, generation.prompt_routes))
    return Generation(
        generation.completion_ids[rows],
        generation.completion_mask[rows],
        generation.policy_logprobs[rows],
        generation.sampler_logprobs[rows],
        generation.finished[rows],
        routes,
        prompt_routes,
    )


def joined(waves: Sequence[Generation], pad_id: int) -> Generation:
    """Concatenate generations along the rows, padded on the right to the longest; of no generation, `no_rows`."""
    if not waves:
        return no_rows()
    width = max(wave.completion_ids.shape[1] for wave in waves)

    def stack(name: str, fill: float = 0) -> Tensor:
        parts = [getattr(wave, name) for wave in waves]
        padded = [pad(part, (0, width - part.shape[1]), value=fill) for part in parts]
        return torch.cat(padded)

    routes = [pad(w.routes, (0, 0, 0, width - w.routes.shape[2])) for w in waves if w.routes.shape[0]]
    longest = max(wave.prompt_routes.shape[2] for wave in waves)
    prompts = [
        pad(w.prompt_routes, (0, 0, longest - w.prompt_routes.shape[2], 0), value=-1)
        for w in waves
        if w.prompt_routes.shape[0]
    ]
    return Generation(
        stack("completion_ids", pad_id),
        stack("completion_mask"),
        stack("policy_logprobs"),
        stack("sampler_logprobs"),
        torch.cat([wave.finished for wave in waves]),
        torch.cat(routes, dim=1) if routes else waves[0].routes,
        torch.cat(prompts, dim=1) if prompts else waves[0].prompt_routes,
    )


def mismatch(generation: Generation) -> tuple[float, float]:
    """Mean and largest difference (nats) of the two log-probs over completion tokens; with top-p the cut-off mass is in it."""
    apart_C = (generation.policy_logprobs - generation.sampler_logprobs)[generation.completion_mask].abs()
    return (float(apart_C.mean()), float(apart_C.max())) if apart_C.numel() else (0.0, 0.0)
