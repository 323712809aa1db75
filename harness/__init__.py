"""The engine: it knows the contracts of models and tasks, never a particular one."""
