"""The commands beside training: measuring, exporting, listing, showing problems, and reports over runs.

base            what small commands share: KEY=VALUE arguments, errors in one line
board, export, lineage, runs, show_problems, write_traces   one command each
review_run      a run, or two beside each other, as one HTML page
evaluate        a model with what it is measured on: evaluate_command is the command, evaluate_records writes every sample down and
                derives tables from what is written
submit          stages as SLURM jobs: submit_points plans the runs that are asked for, submit_jobs orders and submits their jobs,
                sbatch writes the text of a script, code_copy copies the code beside them, slurm calls SLURM's programs,
                submissions keeps the files of a submission, submit_status lists what became of them
notebook        what `import r1_lightning` offers
report          one command for every report over seeds: finds reports/<id>/recipe.py; `recipe` says what a recipe declares,
                report_loop makes each run once and draws from rows, report_runs trains and finds the artefact
reproduce_table   the papers' tables beside ours, and a verdict per claim: `tables` declares, makes and draws them
"""
