"""Artefacts: the folders that stages write, named by a fingerprint, written atomically, with their lineage."""
