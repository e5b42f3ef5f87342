"""`python -m bench.tracking.ui`: the module form of `bench ui`."""

from __future__ import annotations

import sys

from bench.cli.ui import main

if __name__ == "__main__":
    sys.exit(main())
