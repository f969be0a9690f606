"""LightningModules, one per stage of the paper: each calls the pure core and logs the metrics that it returns."""
