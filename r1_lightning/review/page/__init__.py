"""A run as one HTML file that opens without a network: `document.write_page` makes it.

inert_text      what a model wrote, so that a browser only shows it
curve           one curve with its expected band, as SVG; charts: which curves, in which order
run_facts       configuration, lineage and machine, from the files of a run; phases: its time and tokens
samples         one completion, its rewards and tokens, as HTML and numbers; choosing: those that there is room for
rollouts        the browser of rollouts: steps, groups, samples
two_runs        the settings in which two runs differ, and prompts that both answered
document        the whole page; page.css and page.js stand in it
"""
