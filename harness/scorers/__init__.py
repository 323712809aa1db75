"""One scorer per file: from a model's answer to one of the task's labels."""
