"""``python -m metered_sync``: the command line."""

import sys

from metered_sync.cli.main import main

sys.exit(main())
