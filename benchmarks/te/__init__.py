"""Our layers against the real Transformer Engine, without a GPU: `python scripts/te_check.py`."""
