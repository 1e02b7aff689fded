"""`python -m lightning_cnn` is the same as `lightning-cnn`."""

import sys

from lightning_cnn.user_code import LeavingWorkingDirectory

if __name__ == "__main__":
    LeavingWorkingDirectory().__enter__()  # before anything else is imported, and for good: some import at the end
    from lightning_cnn.cli import main

    sys.exit(main())
