"""LightningDataModules: they decide which tokens a stage sees at which step, and can resume in the middle."""
