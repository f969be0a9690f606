"""The line about a key that nobody reads."""

from __future__ import annotations

import pytest

from r1_lightning.run.config.keys import RUN_KEYS, refuse_key
from r1_lightning.types.errors import InvalidInput


def test_a_key_near_to_a_known_one_names_it() -> None:
    with pytest.raises(InvalidInput) as refused:
        refuse_key("task.tokenizer", "vocabsize", 9, "task.tokenizer", RUN_KEYS["task.tokenizer"])
    assert str(refused.value) == (
        "task.tokenizer.vocabsize=9 is not allowed: task.tokenizer takes vocab_size, training_documents, phrases_as_tokens; "
        "did you mean vocab_size?"
    )


def test_a_key_near_to_none_is_told_what_there_is() -> None:
    with pytest.raises(InvalidInput) as refused:
        refuse_key("paths", "zzz", 1, "paths", ())
    assert str(refused.value) == "paths.zzz=1 is not allowed: paths takes nothing"
