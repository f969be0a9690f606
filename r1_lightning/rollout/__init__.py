"""From prompts to minibatches: sampling, scoring, grouping, collating; everything between a policy and its loss."""
