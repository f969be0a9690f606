"""The teacher: loaded when asked, frozen, without gradients, and of the same vocabulary as the student."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.functional.distillation import FullTeacher, TopKTeacher
from r1_lightning.model.sharding import shard
from r1_lightning.rollout.distill_rows import DistillRow, collate_distill
from r1_lightning.rollout.teacher import Teacher, check_same_vocabulary, target_index
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import Processes
from r1_lightning.types.tensors import DistillBatch, TokenBatch
from tests.support.miniature import EOS, PAD, backbone, fingerprint
from tests.support.processes import in_processes

ROWS = [DistillRow((1, 2, 3, EOS), 2), DistillRow((4, 5, EOS), 1)]


def batch() -> DistillBatch:
    return collate_distill(ROWS, 8, PAD, 4)


def teacher() -> Teacher:
    return Teacher(lambda: backbone(3), "abc", 17, "fp32")


def test_it_is_loaded_once_and_when_asked() -> None:
    made = []
    late = Teacher(lambda: made.append(backbone(3)) or made[-1], "abc", 17, "fp32")
    assert not late.is_loaded and made == []
    late.hidden(batch())
    late.hidden(batch())
    assert late.is_loaded and len(made) == 1
    late.release()
    assert not late.is_loaded


def test_frozen_and_in_evaluation_mode() -> None:
    found = teacher()
    before = fingerprint(found.model)
    hidden = found.hidden(batch())
    logits = found.unembed(hidden)
    assert not hidden.requires_grad and not logits.requires_grad
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())
    assert fingerprint(found.model) == before


def test_what_predicts_each_token_is_that_of_the_text_alone() -> None:
    """Row 0 holds both documents: tokens 2, 3 of the first (places 2, 3) and 1, 2 of the second (places 5, 6)."""
    found = teacher()
    assert target_index(batch()).tolist() == [2, 3, 5, 6]
    hidden = found.hidden(batch())
    alone = [found.model.hidden(TokenBatch.of_whole_rows(torch.tensor([row.ids]))).hidden[0] for row in ROWS]
    torch.testing.assert_close(hidden, torch.cat([alone[0][1:3], alone[1][0:2]]), rtol=1e-5, atol=1e-5)


def test_a_batch_that_brings_its_log_probs_does_not_ask_the_model() -> None:
    found = teacher()
    plain = batch()
    assert isinstance(found.tokens(plain), FullTeacher)
    found.release()
    cached = DistillBatch(plain.tokens, plain.target_mask, 4, True, torch.zeros(4, 1).long(), torch.zeros(4, 2))
    assert isinstance(found.tokens(cached), TopKTeacher) and not found.is_loaded


class Words:
    """A tokenizer of some words."""

    def __init__(self, *words: str, eos_id: int = 0) -> None:
        self.words, self.eos_id = words, eos_id

    def vocabulary(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        (
            Words("a", "c", "b"),
            "teacher: token 1='c' is not allowed: teacher and student must share one tokenizer; the student has",
        ),
        (Words("a", "b"), "teacher: token 2=None is not allowed: .*the student has 'c' there"),
        (Words("a", "b", "c", "d"), "teacher: token 3='d' is not allowed: .*the student has None there"),
        (
            Words("a", "b", "c", eos_id=2),
            "teacher is not allowed: the teacher ends its text with id 2, the student with 0",
        ),
    ],
)
def test_another_vocabulary_is_refused_in_one_line(theirs: Any, line: str) -> None:
    with pytest.raises(InvalidInput, match=line) as caught:
        check_same_vocabulary(theirs, Words("a", "b", "c"), "teacher")
    assert "\n" not in str(caught.value)


def test_the_same_vocabulary_is_accepted() -> None:
    ours: Any = Words("a", "b")
    assert check_same_vocabulary(ours, Words("a", "b"), "teacher") is None


def _asked(processes: Processes) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Answers of a teacher that is made in shares, one more for each rank."""

    def make() -> Any:
        model = backbone(3)
        if processes.count > 1:
            shard(model, init_device_mesh("cpu", (processes.count,)))
        return model

    found = Teacher(make, "abc", 17, "fp32")
    with found.gathered():
        answers = []
        for _ in range(1 + processes.rank):
            hidden = found.hidden(batch())
            answers.append((hidden, found.unembed(hidden)))
    hidden = found.hidden(batch())  # once in each process: of the shares again
    for _ in range(1 + processes.rank):  # a head that is frozen stays: each process asks it for its own tokens
        logits = found.unembed(hidden)
    answers.append((hidden, logits))
    gc.disable()
    weight = weakref.ref(next(found.model.parameters()))
    found.release()
    assert weight() is None, "its memory is given back"
    gc.enable()
    return answers


@pytest.mark.slow
def test_gathered_it_answers_each_process_as_often_as_that_asks() -> None:
    expected = in_processes(1, _asked)[0][0]
    for rank, answers in enumerate(in_processes(2, _asked)):
        assert len(answers) == 2 + rank
        assert all(torch.equal(*pair) for answer in answers for pair in zip(answer, expected, strict=True))
