"""`python -m lightning_cnn` is the same as `lightning-cnn`."""

import sys

from lightning_cnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
