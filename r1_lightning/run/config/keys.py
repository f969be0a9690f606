"""Configuration keys that no target takes because `run` reads them itself, and the error line about an unknown key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Literal

from r1_lightning.text.chat_template import TEMPLATES, InstructionName
from r1_lightning.types.errors import require
from r1_lightning.types.text import JudgeName

GRAPH_KEYS = ("inputs", "parent_overrides")  # of the stage node: sources of inputs, whose own fingerprints count
SHARE_KEYS = ("shard", "shards")  # of the stage node: they divide the work among processes and do not change the result
# By group, the keys that do not change the result and so stay out of the fingerprint.
UNCOUNTED = {"stage": (*GRAPH_KEYS, *SHARE_KEYS), "task": ("name", "judge")}
# Leaves that `run` reads itself, alone or beside a target's own: path -> name -> type.
RUN_KEYS: dict[str, dict[str, Any]] = {
    "stage": {"inputs": dict, "parent_overrides": list, "evaluation": dict | None},
    "trainer": {
        "threads": int | None,
        "checkpoint_every_steps": int,
        "checkpoint_async": bool,
        "max_time": str | None,
        "role_devices": dict | None,
        "recompute": bool,
        "timeout_s": int,
    },
    "task": {
        "source": dict,
        "template": Literal[tuple(TEMPLATES)],
        "instruction": InstructionName | None,
        "tokenizer": dict,
        "name": str,
        "judge": JudgeName,
    },
    "task.tokenizer": {"vocab_size": int, "training_documents": int, "phrases_as_tokens": bool},
    "paths": {"root": str, "data": str},
}
JUDGE, TEACHER = "judge", "teacher"  # names of inputs of a stage, and of the parts made from them
TOKEN_CACHE = "token_cache"  # the folder below paths.root for token ids of large files
# Targets of nodes that name none; given by name, because `checks.declared` reads them before anything large is imported.
DEFAULT_TARGETS = {"stage.evaluation": "r1_lightning.evaluation.runner.EvaluationConfig"}
SETTLED_LATER = ("max_steps",)  # keys that may be null whatever their type: the data determine them later
OURS = "r1_lightning."  # other people's constructors may start threads or open files, and are left to the run


def counted(group: str, node: Any) -> Any:
    """Return the part of a configuration group that the fingerprint covers."""
    uncounted = UNCOUNTED.get(group)
    return {key: value for key, value in node.items() if key not in uncounted} if uncounted else node


def refuse_key(path: str, key: str, value: Any, taker: str, known: Iterable[str]) -> None:
    """Raise `InvalidInput` for a key that Hydra accepted but nothing reads."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    require(False, f"{path}.{key}", value, f"{taker} takes {', '.join(known) or 'nothing'}{hint}")
