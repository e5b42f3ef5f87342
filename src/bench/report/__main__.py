"""`python -m bench.report`: the module form of `bench report`."""

from __future__ import annotations

import sys

from bench.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
