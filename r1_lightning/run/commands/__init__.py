"""The commands beside training: measuring, exporting, listing, showing problems, and reports over runs.

base            what small commands share: KEY=VALUE arguments, errors in one line
evaluate, export, runs, show_problems, write_traces   one command each
notebook        what `import r1_lightning` offers
report          what reports over runs share; family_report, language_report, moe_report, reasoning_report and
                reward_hacking_report are one report each
"""
