"""``python -m zss_d2``: the command `zss` where it is not on the path."""

import sys

from zss_d2.cli import main

sys.exit(main())
