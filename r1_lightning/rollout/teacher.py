"""The teacher of a distillation: a frozen model beside the student, loaded at its first use.

It is not a submodule of the stage: it has no gradients and no optimizer state, and is saved neither in checkpoints nor with the
student's weights. A run whose text is completely in the cache (`rollout.teacher_cache`) never loads it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from r1_lightning.functional.distillation import FullTeacher, TeacherTokens, TopKTeacher
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.rollout.sampler import device_of
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.tensors import DistillBatch
from r1_lightning.types.text import SharedVocabulary

# Shape legend: C tokens to be predicted, in the order of the packed rows, D the teacher's width, V vocabulary.


class Teacher:
    """The model that `make` returns (an nn.Module that fits `Backbone`), of the artefact with this `fingerprint`.

    A fingerprint identifies a recipe; `weights` is a digest of the trained weights, which another machine, or the same recipe at
    another time, may not reproduce. `vocabulary` is the number of tokens that student and teacher share; embeddings may have more
    rows. `compute` names the way of computing (`Precision.name`: "fp32", "bf16", ...), because log-probs differ between types.
    """

    def __init__(
        self, make: Callable[[], Any], fingerprint: str, vocabulary: int, compute: str, weights: str = ""
    ) -> None:
        self.make = make
        self.fingerprint = fingerprint
        self.weights = weights
        self.vocabulary = vocabulary
        self.compute = compute
        self.has_own_device = (
            False  # True: the settings name the device that `make` uses, and the model stays whole there
        )
        self._model: Any = None
        self._whole: Any = None  # inside `gathered`
        self.finish: Callable[[Any], None] = lambda model: None

    def after_making(self, finish: Callable[[Any], None]) -> None:
        """Call `finish` with the model, frozen, now or whenever it is made: a strategy shards it so."""
        self.finish = finish
        if self._model is not None:
            finish(self._model)

    @property
    def model(self) -> Any:
        """The model, frozen and in evaluation mode: its forwards must not count expert load."""
        if self._model is None:
            self._model = self.make().requires_grad_(False).eval()
            self.finish(self._model)
        return self._model

    @property
    def is_loaded(self) -> bool:
        return self._model is not None

    def release(self) -> None:
        """Free the model's memory; the next use makes it again."""
        self._model = None
        gc.collect()  # a model in shares refers to itself

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Let each process ask as often as it likes inside the block, which all of them open together.

        A model in shares gathers weights in each forward, for which all processes must call it; inside, a whole copy answers.
        """
        with whole_model(self.model) as self._whole:
            try:
                yield
            finally:
                self._whole = None

    @torch.no_grad()
    def hidden(self, batch: DistillBatch) -> Tensor:
        """The hidden states that predict the C tokens, C x D, computed where the teacher is, and left there."""
        batch = batch.to(device_of(self.model))
        hidden: Tensor = self._asked.hidden(batch.tokens, with_mtp=False).hidden
        return hidden.flatten(0, 1).index_select(0, target_index(batch) - 1)

    @torch.no_grad()
    def unembed(self, hidden_ND: Tensor) -> Tensor:
        """Map hidden states to logits N x (at least V), FP32."""
        logits: Tensor = self._asked.unembed(hidden_ND)
        return logits

    @property
    def _asked(self) -> Any:
        return self.model if self._whole is None else self._whole

    def tokens(self, batch: DistillBatch) -> TeacherTokens:
        """The teacher's distributions of the C tokens: from the batch if a cache has filled it in, else from the model."""
        if batch.top_ids is not None and batch.top_logprobs is not None:
            return TopKTeacher(batch.top_ids, batch.top_logprobs)
        device = batch.tokens.token_ids.device  # the student's; the teacher's may be another
        return FullTeacher(self.hidden(batch), lambda hidden_ND: self.unembed(hidden_ND).to(device))


def target_index(batch: DistillBatch) -> Tensor:
    """Flat positions (row * T + column) of the C target tokens. The position before each is in the same document."""
    return batch.target_mask.flatten().nonzero().squeeze(1)


def check_same_vocabulary(teacher: SharedVocabulary, student: SharedVocabulary, where: str) -> None:
    """Raise `InvalidInput`, naming the first id that differs, unless both tokenizers have the same vocabulary and EOS."""
    theirs, ours = teacher.vocabulary(), student.vocabulary()
    if theirs == ours and teacher.eos_id == student.eos_id:
        return
    names = [{token_id: token for token, token_id in found.items()} for found in (theirs, ours)]
    first = next((i for i in range(max(map(len, names)) + 1) if names[0].get(i) != names[1].get(i)), None)
    if first is None:
        ends = f"ends its text with id {teacher.eos_id}, the student with {student.eos_id}"
        raise InvalidInput(f"{where} is not allowed: the teacher {ends}")
    allowed = f"teacher and student must share one tokenizer; the student has {names[1].get(first)!r} there"
    require(False, f"{where}: token {first}", names[0].get(first), allowed)
