"""The teacher as an input of a stage: `stage.inputs: {base: pretrain, teacher: {stage: grpo}}` or `{folder: FOLDER}`.

Its fingerprint counts like that of any other input. It is loaded at its first use (`rollout.teacher`), with the student's
precision. Its tokenizer must equal the student's, which is checked before training.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch.distributed.device_mesh import DeviceMesh

from r1_lightning.artefacts.store import Artefact
from r1_lightning.rollout.teacher import Teacher, check_same_vocabulary
from r1_lightning.run.build.device import mesh_of, role_device, told_device
from r1_lightning.run.build.stored import open_language_model
from r1_lightning.run.config.keys import TEACHER
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require


def with_teacher(parts: Mapping[str, Any], inputs: Mapping[str, Artefact], config: DictConfig) -> dict[str, Any]:
    """Return `parts` with a `Teacher` if the stage has an input of that name; `config` gives its device and `data.row_tokens`.

    InvalidInput if it is not a language model, has another tokenizer than the student, or cannot read such rows.
    """
    if TEACHER not in inputs:
        return dict(parts)
    device, row_tokens = role_device(config, TEACHER), config.data.get("row_tokens") or 0
    has_own_device = told_device(config, TEACHER) is not None
    mesh = None if has_own_device else mesh_of(config)  # on a device of its own each process holds it whole
    teacher = teacher_of(inputs[TEACHER], parts["tokenizer"], parts["backbone"], row_tokens, device, mesh)
    teacher.has_own_device = has_own_device
    return {**parts, TEACHER: teacher}


def teacher_of(
    artefact: Artefact,
    tokenizer: TextTokenizer,
    student: Any,
    row_tokens: int = 0,
    device: torch.device | None = None,
    mesh: DeviceMesh | None = None,
) -> Teacher:
    """Return the model in `artefact` (ours, or a HuggingFace folder) as the teacher of `student`, on `device`, or in shares."""
    model = open_language_model(artefact, student.precision, TEACHER, "predicts no tokens")
    check_same_vocabulary(model.tokenizer, tokenizer, f"stage.inputs.{TEACHER}={str(artefact.folder)!r}")
    shape = model.shape
    allowed = f"the teacher reads at most {shape.max_positions} tokens"
    require(row_tokens <= shape.max_positions, "data.row_tokens", row_tokens, allowed)
    # An artefact's marker holds the weights' digest, already verified; a HuggingFace folder's fingerprint is itself a digest.
    weights = artefact.weights_sha256 or artefact.fingerprint
    make = partial(model.backbone, device, mesh)
    return Teacher(make, artefact.fingerprint, tokenizer.vocab_size, student.precision.name, weights)
