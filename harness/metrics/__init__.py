"""One metric per file: a pure function from scored items to a number."""
