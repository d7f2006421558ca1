"""Run the command line as ``python -m metered_sync.cli``."""

import sys

from metered_sync.cli.main import main

sys.exit(main())
