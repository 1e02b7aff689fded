"""`python -m lightning_cnn` is the same as `lightning-cnn`."""

import sys

from lightning_cnn.user_code import LeavingWorkingDirectory

if __name__ == "__main__":
    with LeavingWorkingDirectory():  # before anything else is imported
        from lightning_cnn.cli import main

        sys.exit(main())
