"""What the child of `child_reader.py` runs: `python -P child_main.py READER.py PATH DESCRIPTOR`.

It writes the arrays into the descriptor, one after the other, and prints how many they are; where the reader fails, it
prints why. It imports nothing of this package.
"""

import importlib.util
import os
import resource
import sys

import numpy as np


def main(reader: str, path: str, descriptor: int) -> int:
    """Reads. Returns the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spec = importlib.util.spec_from_file_location("reader", reader)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        arrays = module.read(path)
    except Exception as error:  # from damaged bytes h5py and scipy raise nearly everything
        print(" ".join(str(error).split()) or type(error).__name__, end="")
        return 1
    with os.fdopen(descriptor, "wb") as file:
        for array in arrays:
            np.lib.format.write_array(file, array, allow_pickle=False)
    print(len(arrays), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
