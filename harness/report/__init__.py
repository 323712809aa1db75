"""From results to paper: tables and figures, made of what lies in a results folder alone; no model, no torch."""
