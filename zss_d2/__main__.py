"""``python -m zss_d2``: the command `zss` where it is not on the path."""

import sys

from zss_d2 import cli

# Processes that a training spawns import the main module, but none called __main__: let it be the
# one that has them wait quietly for Ctrl-C.
__spec__ = cli.__spec__

if __name__ == "__main__":
    sys.exit(cli.main())
