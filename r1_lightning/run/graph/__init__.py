"""The stage graph: planned from the target down with a fingerprint per stage, built from its inputs up.

plan, node      a stage and everything it needs, planned
inheriting      what a stage takes from the input it starts from
fingerprints    what of a configuration decides the result
build, waiting  reuse, resume, make; wait for what another process makes
stage_tree, last_words   the graph for people, and what to do next
"""
