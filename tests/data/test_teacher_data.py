"""Text for a student: a function of (seed, step), micro-batches of one denominator, and scored once where it is cached."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts.data_set import part_path, write_lines
from r1_lightning.data.teacher_data import DistillDataset, TeacherTracesDataModule
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.rollout.teacher_cache import TeacherCache
from r1_lightning.tasks.traces import TraceFile
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import DistillBatch
from r1_lightning.types.text import Trace
from tests.support.miniature import ALPHABET, EOS, PAD, CharTokenizer, Miniature, Sums
from tests.support.processes import in_processes


class Given:
    """A `TraceSource` of what it is given."""

    content_version = "given-1"

    def __init__(self, *traces: Trace) -> None:
        self.items = traces

    def traces(self) -> list[Trace]:
        return list(self.items)


def data(**settings: Any) -> DistillDataset:
    module = Miniature(max_steps=settings.pop("max_steps", 5), seed=settings.pop("seed", 0)).traces(**settings)
    module.setup("fit")
    assert module.dataset is not None
    return module.dataset


def texts_of(batch: DistillBatch) -> list[str]:
    """Every document of a batch, its EOS apart."""
    found = []
    for ids, owners in zip(batch.tokens.token_ids, batch.tokens.document_ids, strict=True):
        for owner in range(1, int(owners.max()) + 1):
            *text, end = ids[owners == owner].tolist()
            assert end == EOS and PAD not in text
            found.append("".join(ALPHABET[token] for token in text))
    return found


def test_a_step_holds_its_documents_and_no_others() -> None:
    found = data(items_per_batch=3)
    for step in range(5):
        assert sorted(texts_of(found[step])) == sorted(Sums().documents(0, 3 * step, 3))
    assert sorted(texts_of(data(items_per_batch=3, first_document=30)[1])) == sorted(Sums().documents(0, 33, 3))


def test_every_token_but_a_documents_first_is_learned() -> None:
    batch = data()[0]
    first = batch.tokens.position_ids == 0
    assert torch.equal(batch.target_mask, batch.tokens.is_token & ~first)
    assert batch.n_tokens == int(batch.target_mask.sum()) and not batch.is_on_policy


def test_random_access_and_the_seed() -> None:
    one, other = data(), data()
    for step in (4, 0, 2):
        assert torch.equal(one[step].tokens.token_ids, other[step].tokens.token_ids)
    assert not torch.equal(one[0].tokens.token_ids, data(seed=1)[0].tokens.token_ids)
    assert len(data(max_steps=7)) == 7 and one.state_dict() == {}


def test_micro_batches_share_the_steps_documents_and_its_denominator() -> None:
    whole, parts = data(), data(micro_batches=3)
    assert len(parts) == 15
    for step in range(5):
        own = [parts[3 * step + part] for part in range(3)]
        assert sorted(text for batch in own for text in texts_of(batch)) == sorted(texts_of(whole[step]))
        assert {batch.n_tokens for batch in own} == {whole[step].n_tokens}
        assert sum(int(batch.target_mask.sum()) for batch in own) == whole[step].n_tokens


def test_traces_come_once_per_pass_in_another_order_each_time() -> None:
    source = Given(*(Trace(f"{n}+1=", f"{n + 1}") for n in range(8)))
    found = data(traces=source, items_per_batch=4, max_steps=6)
    passes = [sorted(texts_of(found[step]) + texts_of(found[step + 1])) for step in (0, 2, 4)]
    assert passes[0] == passes[1] == passes[2] == sorted(PLAIN.render(f"{n}+1=") + f" {n + 1}" for n in range(8))
    orders = {tuple(found.batches(step)[0].tokens.token_ids.flatten().tolist()) for step in range(0, 6, 2)}
    assert len(orders) == 3


def test_only_completions_of_traces_are_learned() -> None:
    batch = data(traces=Given(Trace("1+1=", "2")), items_per_batch=1)[0]
    assert batch.tokens.token_ids[batch.target_mask].tolist() == [14, 2, EOS]


def test_long_traces_are_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    long = Trace("1+1=", "2" * 30)
    found = data(traces=Given(long, Trace("1+1=", "2")), items_per_batch=2)
    assert len(texts_of(found[0])) == 2
    assert "traces: 1; left out: 1 (longer than row_tokens = 24)" in capsys.readouterr().out
    with pytest.raises(
        InvalidInput, match=r"data.row_tokens=24 is not allowed: no trace fits into a row; the longest takes 36"
    ):
        data(traces=Given(long))


def test_a_file_is_such_a_source(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"question": "1+1=", "completion": "2"}')
    assert texts_of(data(traces=TraceFile(str(tmp_path / "t.jsonl")), items_per_batch=1)[0]) == ["1+1= 2"]


def test_the_data_set_of_an_artefact_is_text_as_well(tmp_path: Path) -> None:
    """Its rows in their order of passes, learned as traces are: completions only."""
    rows = [{"question": f"{n}+0=", "completion": str(n)} for n in range(10, 16)]
    write_lines(part_path(tmp_path, 0), rows)
    made = data(data_folder=tmp_path, items_per_batch=6)
    assert sorted(texts_of(made[0])) == sorted(f"{n}+0= {n}" for n in range(10, 16))
    assert int(made[0].target_mask.sum()) == 6 * 4, "a space, two digits and the end of each"


def test_a_source_that_runs_out_of_documents_is_refused() -> None:
    class Few(Sums):
        def documents(self, seed: int, start: int, count: int) -> Any:
            return super().documents(seed, start, max(0, min(count, 8 - start)))

    tokenizer: Any = CharTokenizer()
    module = TeacherTracesDataModule(Few(), tokenizer, PLAIN, 0, 5, items_per_batch=6, row_tokens=24)
    module.setup("fit")
    assert module.dataset is not None and module.dataset[0].n_tokens > 0
    with pytest.raises(InvalidInput, match="no documents from number 8 on"):
        module.dataset[1]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"items_per_batch": 0}, "data.items_per_batch=0"),
        ({"micro_batches": 7}, "data.micro_batches=7 is not allowed: it must be at most items_per_batch = 6"),
        ({"row_tokens": 1}, "data.row_tokens=1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInput, match=line):
        Miniature().traces(**settings)


# --------------------------------------------------------------------------------------------------------- the cache


def test_the_cache_brings_the_same_text_with_log_probs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = Miniature(max_steps=3)
    module = miniature.cached(tmp_path / "cache", micro_batches=2)
    module.setup("fit")
    assert module.dataset is not None and not module.teacher.is_loaded, "its memory is given back"
    plain = miniature.traces(micro_batches=2)
    plain.setup("fit")
    assert plain.dataset is not None
    tokens = 0
    for number in range(6):
        cached, text = module.dataset[number], plain.dataset[number]
        assert torch.equal(cached.tokens.token_ids, text.tokens.token_ids) and cached.n_tokens == text.n_tokens
        count = int(text.target_mask.sum())
        assert cached.top_ids is not None and cached.top_ids.shape == (count, 4)
        tokens += count
    printed = capsys.readouterr().out
    assert (
        f"teacher cache: {tokens:,} tokens x 4 of 17, 0.0 MB in 6 shards, of which 6 (0.0 MB) are to be written"
        in printed
    )


def test_a_second_run_does_not_load_the_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Miniature(max_steps=2).cached(tmp_path / "cache").setup("fit")
    silent = Teacher(lambda: pytest.fail("asked again"), "teacher-1", CharTokenizer.vocab_size, "fp32")
    again = Miniature(max_steps=2).cached(tmp_path / "cache", teacher=silent)
    again.setup("fit")
    assert again.dataset is not None and again.dataset[1].top_ids is not None
    assert "in 2 shards, of which 0 (0.0 MB)" in capsys.readouterr().out
    asked = Miniature(max_steps=3).cached(tmp_path / "cache")  # a longer run asks for what is new
    asked.setup("fit")
    assert "in 3 shards, of which 1 (" in capsys.readouterr().out


def test_bad_settings_of_the_cache_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"data.top_k=0 is not allowed"):
        Miniature().cached(tmp_path, top_k=0)
    with pytest.raises(InvalidInput, match=r"data.top_k=18 is not allowed: there are 17 tokens"):
        Miniature().cached(tmp_path, top_k=18).setup("fit")


def _filled(processes: Processes, folder: Path) -> int:
    """Fill a cache of five batches; return how many of them this process asked the teacher for."""
    asked: list[int] = []

    class Counted(Teacher):
        def hidden(self, batch: DistillBatch) -> torch.Tensor:
            asked.append(batch.n_tokens)
            return super().hidden(batch)

    mini = Miniature(max_steps=5, processes=processes)
    teacher = mini.teacher()
    counted = Counted(teacher.make, teacher.fingerprint, teacher.vocabulary, teacher.compute)
    module = mini.cached(folder, counted)
    module.setup("fit")
    assert module.dataset is not None and len(module.dataset[4].top_ids) > 0  # made by whichever process
    return len(asked)


def test_processes_ask_the_teacher_once_for_each_shard(tmp_path: Path) -> None:
    assert in_processes(2, _filled, tmp_path) == [3, 2]
    assert in_processes(3, _filled, tmp_path) == [0, 0, 0]


def test_a_signal_ends_the_filling_between_two_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes while the second of three shards is written; that one is kept, and the next run writes the third alone."""
    write, written = TeacherCache.write, []

    def struck(cache: TeacherCache, batch: Any) -> None:
        written.append(batch)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        write(cache, batch)

    monkeypatch.setattr(TeacherCache, "write", struck)
    with STOP.listening(), STOP.between_polls(), pytest.raises(Stopped):
        Miniature(max_steps=3).cached(tmp_path / "cache").setup("fit")
    assert len(written) == 2
    capsys.readouterr()
    Miniature(max_steps=3).cached(tmp_path / "cache").setup("fit")
    assert len(written) == 3 and "in 3 shards, of which 1 " in capsys.readouterr().out
