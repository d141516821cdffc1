"""`python -m llmswap.fake_upstream`."""

import sys

from llmswap.fake_upstream.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
