"""A teacher's likeliest tokens on disk: the teacher runs once, and many students can learn from it.

Each micro-batch has one file (shard), named by a digest of everything that determines its content: the teacher's fingerprint, a
digest of its weights (a second run of the same recipe may give other weights) and its compute type, `top_k`,
`distill_temperature`, the tokens, and the target mask. So runs with the same precision and text share shards, whatever their
student, objective or learning rate; other batch sizes or another order need other shards. A shard holds, for each of the C tokens,

    ids       C x K        int32   the K likeliest tokens, in the order of their ids
    logprobs  C x (K + 1)  FP16    their log-probs under softmax(logits / distill_temperature), and that of all others together

which is 4 K + 2 (K + 1) bytes a token. FP16 keeps a log-prob to a relative 2^-11 (one of -10 to 0.004, one of -0.1 to 0.00004); on
reading, the probabilities are normalised to sum to 1 again.

A shard is written to a temporary file and renamed: a killed writer leaves no shard, at most a hidden `.tmp` file that nobody reads,
and the next run goes on after the last shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from r1_lightning.artefacts.files import output_folder
from r1_lightning.artefacts.weights import opened, save_tensors
from r1_lightning.functional.distillation import CHUNK_LOGITS, top_k_logprobs
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.types.errors import InvalidInput, require, require_int, require_number
from r1_lightning.types.tensors import DistillBatch

# Shape legend: C tokens to be predicted, K likeliest tokens.

FORMAT_VERSION = 3  # raise it when the same teacher and tokens would give another shard
ID_BYTES, LOGPROB_BYTES = 4, 2
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class TeacherCache:
    """The shards of one teacher in `folder`; `top_k` and `distill_temperature` are part of their names."""

    folder: Path
    teacher: Teacher
    top_k: int
    distill_temperature: float

    def __post_init__(self) -> None:
        require_int("data.top_k", self.top_k, 1)
        require_number("data.distill_temperature", self.distill_temperature, 0.0, open_minimum=True)
        allowed = f"there are {self.teacher.vocabulary} tokens"
        require(self.top_k <= self.teacher.vocabulary, "data.top_k", self.top_k, allowed)

    @property
    def columns(self) -> int:
        """Log-probs per token: K and one for all other tokens, unless K is the whole vocabulary."""
        return self.top_k + (self.top_k < self.teacher.vocabulary)

    def bytes_of(self, n_tokens: int) -> int:
        """Bytes of `n_tokens` on disk, without headers."""
        return n_tokens * (ID_BYTES * self.top_k + LOGPROB_BYTES * self.columns)

    def path_of(self, batch: DistillBatch) -> Path:
        tokens = batch.tokens
        parts = (tokens.token_ids, tokens.position_ids, tokens.document_ids, batch.target_mask)
        header = {
            "format": FORMAT_VERSION,
            "teacher": self.teacher.fingerprint,
            "weights": self.teacher.weights,
            "compute": self.teacher.compute,
            "vocabulary": self.teacher.vocabulary,
            "top_k": self.top_k,
            "distill_temperature": float(self.distill_temperature),
            "shape": list(tokens.token_ids.shape),
        }
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for part in parts:
            digest.update(part.cpu().to(torch.int32).contiguous().numpy().tobytes())
        return self.folder / f"{digest.hexdigest()}{SUFFIX}"

    def missing(self, batches: Iterable[DistillBatch]) -> Iterator[DistillBatch]:
        """Yield the batches without a complete shard; a truncated shard counts as missing."""
        return (batch for batch in batches if not self._is_whole(self.path_of(batch)))

    def write(self, batch: DistillBatch) -> None:
        """Run the teacher and write the shard; InvalidInput if the folder is full or read-only."""
        ids_CK, logprobs_CC = self._score(batch)
        tensors = {
            "ids": ids_CK.to("cpu", torch.int32).contiguous(),
            "logprobs": logprobs_CC.to("cpu").clamp(min=torch.finfo(torch.float16).min).half().contiguous(),
        }
        with output_folder(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, self.path_of(batch), {"sha256": _digest(tensors)})

    def read(self, batch: DistillBatch) -> DistillBatch:
        """Return the batch with its teacher's log-probs; InvalidInput if its shard is missing or damaged."""
        path = self.path_of(batch)
        require(path.is_file(), "teacher cache", str(path), "there is no such shard; the same command makes it anew")
        with opened(path) as shard:
            written = (shard.metadata() or {}).get("sha256")
        tensors = load_file(path)
        if _digest(tensors) != written:
            raise InvalidInput(f"teacher cache={str(path)!r} is not allowed: the shard is damaged; remove it")
        logprobs = tensors["logprobs"].float().log_softmax(-1)
        return replace(batch, top_ids=tensors["ids"].long(), top_logprobs=logprobs)

    @torch.no_grad()
    def _score(self, batch: DistillBatch) -> tuple[Tensor, Tensor]:
        hidden_CD = self.teacher.hidden(batch)
        size = max(1, CHUNK_LOGITS // self.teacher.vocabulary)
        pairs = [
            top_k_logprobs(
                self.teacher.unembed(chunk)[:, : self.teacher.vocabulary], self.top_k, self.distill_temperature
            )
            for chunk in hidden_CD.split(size)
        ]
        ids, logprobs = zip(*pairs, strict=True)
        return torch.cat(ids), torch.cat(logprobs)

    def _is_whole(self, path: Path) -> bool:
        if not path.is_file():
            return False
        try:
            with opened(path):  # compares the file's length with its header
                return True
        except InvalidInput:
            return False


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
