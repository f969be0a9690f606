"""The commands beside training: measuring, exporting, listing, showing problems, and reports over runs.

base            what small commands share: KEY=VALUE arguments, errors in one line
evaluate, export, lineage, runs, show_problems, write_traces   one command each
notebook        what `import r1_lightning` offers
report          one command for every report over seeds: finds reports/<id>/recipe.py; `recipe` says what a recipe declares,
                report_loop makes each run once and draws from rows, report_runs trains and finds the artefact
"""
