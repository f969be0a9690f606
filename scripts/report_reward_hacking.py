"""Run GRPO long against a reward model, and against the rule beside it, and write `reports/reward_hacking`."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.reward_hacking_report import main

if __name__ == "__main__":
    sys.exit(main())
