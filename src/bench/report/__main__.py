"""`python -m bench.report`: the door to `bench.reporting`, for a room imports no sources."""

from __future__ import annotations

import sys

from bench.reporting import main

if __name__ == "__main__":
    sys.exit(main())
