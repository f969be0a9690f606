"""Names of the files in an artefact's folder that are read without torch, and the configuration groups that decide a result."""

from __future__ import annotations

from pathlib import Path

MARKER = "artefact.json"  # written last
CONFIG = "config.yaml"  # the resolved configuration
METRICS = Path("tensorboard", "metrics.csv")  # a row per optimizer step

# What a stage's result depends on, beside its seed and its inputs; the fingerprint covers these groups.
DECIDING_GROUPS = ("model", "task", "data", "rollout", "reward", "optim", "precision", "stage")
