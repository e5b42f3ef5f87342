"""`python -m bench.analysis.calibrate`: the module form of `bench calibrate`."""

from __future__ import annotations

import sys

from bench.cli.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
