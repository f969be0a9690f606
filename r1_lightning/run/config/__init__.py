"""Configurations: composed by Hydra or read from artefacts, and the names that every other room uses.

compose, stage_config   a stage's configuration and those of the stages that make its inputs
settle                  values of an option for one stage alone
hydra_errors, quoting   Hydra's errors in one line; quotes around values that Hydra cannot read bare
inject, targets         objects from nodes with a `_target_`, and the code that a node may name
declarations            declarations of classes: batch types, needs, own rewards
moved_names             names of classes that moved: the first for fingerprints, all of them in configurations
stored                  the stored configuration of an artefact
keys, hints, file_names keys that `run` reads itself; plain values against annotations; readers for files given by name
exit_codes, machine, openmp   exit codes, and settings of the system before torch is imported
place, starting, speaking     the processes of a run: who this one is, starting the others, one voice for all
slurm                   what `launcher=slurm` asks a cluster for
program                 how the user started the program, for the commands that it prints
"""
