"""`python -m llmswap`."""

import sys

from llmswap.cli import main

if __name__ == "__main__":
    sys.exit(main())
