"""One model adapter per file; the file's name is the model's name on the command line."""
