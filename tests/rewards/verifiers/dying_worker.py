"""A verifier process that is killed in the middle of some tasks: always of "always", once where a file of that name is there."""

from __future__ import annotations

import os
import signal

from r1_lightning.rewards.verifiers.worker import serve


def judge(given: str, reference: str) -> tuple[bool, str, bool]:
    if given == "always" or os.path.exists(given):
        if given != "always":
            os.remove(given)
        os.kill(os.getpid(), signal.SIGKILL)
    return True, "same", True


if __name__ == "__main__":
    serve(lambda: None, judge)
