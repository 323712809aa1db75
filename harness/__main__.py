"""`python -m harness`: the same commands as the console script `lalm-harness`."""

from __future__ import annotations

import sys

from harness.cli import main

if __name__ == "__main__":
    sys.exit(main())
