"""Exit codes of every verb; 0 is complete, and 1 is finished with failures."""

from __future__ import annotations

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
