"""Entry point of ``python3 hack/cluster COMMAND``: see devcluster/cli.py."""

import sys

from devcluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
