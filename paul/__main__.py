"""python -m paul: the command line."""

import sys

from paul.cli import main

if __name__ == "__main__":
    sys.exit(main())
