"""The paper's tables, and ours beside them: `python scripts/reproduce_table.py table=ID`; configs/table/ID.yaml declares one.

declared    what a YAML says: arms, measures, the paper's file, claims with their rules; unknown keys are refused
claims      the rules of claims, a closed set, and the verdict over seeds
paper       the numbers that the papers print, as CSV files beside this one, with their sources
values      the values of arms and measures, by seed, from rows of results.csv and points of curves.csv
page        table.md: the paper beside ours, both intervals, verdicts
derived     the pages that stand below a folder of reports: drawn, compared, and drawn again after a report
making      trains what is missing and measures it, or measures checkpoints of one's own, as a `Recipe`
functions   measures that no YAML can say, a function each
"""
