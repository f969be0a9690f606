"""Speed beside other people's implementations of the same work: never a test, always a table (see README.md)."""
