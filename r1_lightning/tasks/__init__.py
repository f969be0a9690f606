"""Sources of problems: generators and data-set adaptors; the same settings and seed always give the same problems."""
