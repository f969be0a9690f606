"""Where problems come from: generators and data set adaptors, rows in, problems out, the same for the same seed."""
