"""Simulate pipeline schedules beside the formulas of DeepSeek-V3's Table 2: bubble, memory and timelines."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("plan-pipeline"))
