"""Network code: the one place below `models` that imports torch at module level."""
