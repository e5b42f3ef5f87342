"""`python -m bench.tracking.sync`: the module form of `bench sync`."""

from __future__ import annotations

import sys

from bench.cli.sync import main

if __name__ == "__main__":
    sys.exit(main())
