"""Exit codes of commands: 0 done, 2 bad input, 124 time limit, 130 Ctrl-C, 143 SIGTERM, 1 a defect, with its traceback."""

from __future__ import annotations

from r1_lightning.types.errors import InvalidInput

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
TERMINATED = 143  # 128 + SIGTERM, which batch systems send


def bad_input_in(error: Exception) -> str | None:
    """Return the line of the `InvalidInput` that `error` is or was raised from; None if there is none."""
    cause: BaseException | None = error
    while cause is not None:  # Hydra's instantiate wraps what a constructor raised
        if isinstance(cause, InvalidInput):
            return " ".join(str(cause).split())
        cause = cause.__cause__
    return None
