"""LightningModules: one stage of the paper each, calling the pure core and logging what it returns."""
