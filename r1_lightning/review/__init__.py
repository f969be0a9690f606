"""Whether a run is to be trusted, read from the files that it leaves: its curves beside the band of its experiment, rules
that name what is wrong, and the sampled completions with the reason of every reward.

Only files are read, and all of them as if a stranger had written them; no torch, so that a review takes milliseconds.
"""
