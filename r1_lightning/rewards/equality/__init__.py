"""Whether an answer equals its reference: `quick` and `structure` for mathematics, down to values of formulas; `code` for output.

Pure functions of strings, without a process of their own. `quick` decides what needs no algebra; `structure` takes lists, sets
(`real_sets`), matrices and systems (`layouts`) and equations (`relations`) apart; `formulas` parses what is left, and `agreement`
compares values at points (`real_values`).
"""
