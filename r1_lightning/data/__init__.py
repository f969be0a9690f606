"""LightningDataModules: they decide which tokens a stage sees at which step, and resume at any step."""
