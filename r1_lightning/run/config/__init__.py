"""Configurations: composed by Hydra, read again from artefacts, and the names that every other room uses.

compose, stage_config   a stage's configuration and those of the stages that make its inputs
settle                  what an option has for one stage alone
hydra_errors, quoting   Hydra's refusals in one line; names that Hydra cannot read bare
inject, targets         objects from nodes with a `_target_`, and which code a node may name
declarations            what classes say of themselves: batch types, needs, own rewards
stored                  an artefact's configuration, read again
keys, hints, file_names keys that `run` reads itself; annotations and plain values; readers of files that are only named
exit_codes, machine, openmp   how a command ends, and what it needs of the system before torch is imported
program                 how the program was started, for the commands that it prints
"""
