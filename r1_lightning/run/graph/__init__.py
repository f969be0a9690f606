"""The stage graph: planned from the target down with a fingerprint per stage, built from its inputs up.

plan, node      a planned stage and its inputs
inheriting      settings that a stage takes from the input it starts from
fingerprints    the parts of a configuration that determine the result
build, waiting  reuse, resume or make artefacts; wait for one that another process makes
fresh           what `fresh=true` began in a batch job that is queued again
stage_tree, last_words   the graph as text, and the commands to run next
"""
