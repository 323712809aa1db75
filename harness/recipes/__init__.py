"""One training recipe per file."""
