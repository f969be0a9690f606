"""What a stage leaves behind: a folder named by a fingerprint, written atomically, with its lineage."""
