"""From prompts to minibatches: sampling, judging, advantages and collating, which is all between a policy and its loss."""
