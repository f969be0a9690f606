"""vLLM behind two calls, `generate` and `load_weights`. Only this file imports it.

vLLM (Kwon et al. 2023, arXiv:2309.06180; extra `vllm`, 0.20 or newer) runs its own copy of the model in its own processes. We
start it from a `config.json` alone with dummy weights (`load_format="dummy"`) and send the trainer's weights before the first
completion and after every update. They are written as safetensors files to the system's temporary folder (TMPDIR; a folder in
memory is fastest), so only the folder's name passes between processes. In the worker `WeightReceiver` reads the files, hashes
the tensors and passes them to vLLM's `reload_weights`. Unlike a bare `model.load_weights`, that also recomputes the tensors that
vLLM derives from the weights: for MLA the absorbed W^UK and W^UV, which would otherwise stay those of the old policy. Keys and
values that the old weights cached for the prompts are dropped.

The checksum covers the tensors that reached vLLM's loader in the worker. The loader fuses, casts and rearranges them for its
kernels, and these results cannot be compared with the trainer's bytes.

None of this has been run with vLLM itself, on any hardware: it is tested against a fake of the published interface. Untested in
particular: vLLM's MLA kernels at head sizes other than V3's (VLLM_MLA_DISABLE=1 uses plain attention), several GPUs, and trainer
and engine within the memory of one GPU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from weakref import finalize

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_config import config_to_hf
from r1_lightning.model.mla import LATENT_NORM_EPS
from r1_lightning.rollout.sampler import SamplerSettings
from r1_lightning.types.errors import InvalidInput, require

RECEIVER = "r1_lightning.rollout.vllm_engine.WeightReceiver"


def require_vllm() -> None:
    """Raise `InvalidInput` naming the extra to install if vLLM is missing."""
    if find_spec("vllm") is None:
        raise InvalidInput("rollout=vllm is not allowed: vLLM is not installed here; pip install -e '.[vllm]'")


def tensor_digest(name: str, tensor: Tensor) -> str:
    """SHA-256 over name, dtype, shape and bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(tensor_digests: Mapping[str, str]) -> str:
    """SHA-256 over the digests of all tensors (name -> digest), sorted by name."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(tensor_digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


class WeightReceiver:
    """Methods that vLLM adds to its worker class (`worker_extension_cls`); no name here may clash with the worker's own."""

    reload_weights: Callable[..., None]  # the worker's own

    def receive_weights_from(self, folder: str) -> str:
        """Load every `*.safetensors` of `folder`; returns the digest of the tensors."""
        digests: dict[str, str] = {}

        def read() -> Iterator[tuple[str, Tensor]]:
            for path in sorted(Path(folder).glob("*.safetensors")):
                for name, tensor in load_file(path).items():
                    digests[name] = tensor_digest(name, tensor)
                    yield name, tensor

        self.reload_weights(weights_iterator=read())
        return weights_digest(digests)


class VLLMEngine:
    """A vLLM model of the shape `config`, started at the first call.

    Of `settings` it takes the token ids and how many completions are decoded at a time. `gpu_memory_utilization` is vLLM's share of
    the GPU's memory, 0..1.
    """

    def __init__(
        self,
        config: ModelConfig,
        settings: SamplerSettings,
        dtype: str,
        gpu_memory_utilization: float,
    ) -> None:
        # vLLM has one eps for all norms; in our model, as in the published code, that of the latents is fixed.
        allowed = f"vLLM gives every norm the same eps, and those of the latents have {LATENT_NORM_EPS:g}"
        require(config.norm_eps == LATENT_NORM_EPS, "model.norm_eps", config.norm_eps, allowed)
        # vLLM does not get the MTP modules.
        ends = list(settings.eos_ids) if len(settings.eos_ids) > 1 else settings.eos_ids[0]
        self.model = config_to_hf(replace(config, mtp_depth=0), eos_token_id=ends, pad_token_id=settings.pad_id)
        self.settings = {
            "dtype": dtype,
            "gpu_memory_utilization": gpu_memory_utilization,
            "max_num_seqs": settings.max_rows,
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
            from vllm import LLM

            folder = mkdtemp(prefix="r1_lightning_vllm_")
            finalize(self, rmtree, folder, ignore_errors=True)  # it lives as long as the engine
            (Path(folder) / "config.json").write_text(json.dumps(self.model), encoding="utf-8")
            self._llm = LLM(model=folder, **self.settings)
        return self._llm

    def generate(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """vLLM's `RequestOutput`s for R prompts of token ids, in their order; `settings` are R `SamplingParams`."""
        llm = self._started()
        from vllm import SamplingParams

        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return llm.generate(requests, sampling_params=[SamplingParams(**row) for row in settings], use_tqdm=False)

    def load_weights(self, chunks: Iterable[Mapping[str, Tensor]]) -> Sequence[str]:
        """Send all weights, under the names of HuggingFace's files; returns each worker's digest of the tensors it read."""
        llm = self._started()
        with TemporaryDirectory(prefix="r1_lightning_weights_") as folder:
            for number, chunk in enumerate(chunks):
                # A copy of each, because safetensors refuses tensors that share memory (a tied head).
                copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in chunk.items()}
                save_file(copies, Path(folder) / f"{number:05}.safetensors")
            digests = llm.collective_rpc("receive_weights_from", args=(folder,))
        if not llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop the keys and values that the old weights had cached")
        return digests
