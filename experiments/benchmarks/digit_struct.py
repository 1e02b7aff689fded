"""Times the reading of a digitStruct.mat of SVHN's size: ours, and the usual way, object by object.

    uv run experiments/benchmarks/digit_struct.py --annotations ../shared/data/svhn/svhn_format1_annotations.zip

The file is written in MATLAB's layout into a temporary folder, about a minute for 33,402 images; without the real
annotations it has random ones of the same lengths. The usual way is timed on the first images and multiplied, unless
`--whole` is given. Both ways must give the same values.
"""

import argparse
import re
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.digit_struct import read_digit_struct

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "tools"))
from svhn_files import Digit, Record, write_digit_struct

FIELDS = ("label", "left", "top", "width", "height")
# how many of the 33,402 training images have one to six digits
LENGTHS = (5137, 18130, 8691, 1434, 9, 1)


def real_records(archive: Path, count: int) -> list[Record]:
    """The first annotations of the training part, one XML file an image; right = left + width there."""
    with zipfile.ZipFile(archive) as content:
        texts = [content.read(f"annotation/train/{number}.xml").decode() for number in range(1, count + 1)]
    return [(f"{row + 1}.png", [_digit(part) for part in text.split("<object>")[1:]]) for row, text in enumerate(texts)]


def _digit(text: str) -> Digit:
    names = ("name", "xmin", "ymin", "xmax", "ymax")
    found = dict(re.findall(r"<(\w+)>\s*(-?\d+)\s*<", text))
    label, left, top, right, bottom = (int(found[name]) for name in names)
    return label, left, top, right - left, bottom - top


def random_records(count: int) -> list[Record]:
    """Digits side by side, as many as the real images have."""
    random = np.random.default_rng(0)
    lengths = random.permutation(np.repeat(np.arange(1, 7), LENGTHS))
    sizes = random.integers(10, 60, (count, 2)).tolist()
    labels = random.integers(1, 11, (count, 6)).tolist()
    return [
        (f"{row + 1}.png", [(labels[row][i], 5 + i * sizes[row][0], 7, *sizes[row]) for i in range(lengths[row])])
        for row in range(count)
    ]


def object_by_object(path: Path, count: int) -> list[list[list[float]]]:
    """What every tutorial does: follows each reference by itself."""
    found = []
    with h5py.File(path) as file:
        names, boxes = file["digitStruct/name"], file["digitStruct/bbox"]
        for row in range(count):
            "".join(chr(letter[0]) for letter in file[names[row][0]])
            box, fields = file[boxes[row][0]], []
            for name in FIELDS:
                column = box[name]
                if len(column) > 1:
                    fields.append([file[column[i][0]][0][0] for i in range(len(column))])
                else:
                    fields.append([column[0][0]])
            found.append(fields)
    return found


def check(ours: DigitAnnotations, usual: list[list[list[float]]]) -> None:
    """Compares what both ways have read."""
    label, left, top, width, height = np.concatenate([np.array(fields) for fields in usual], axis=1)
    rows = len(label)
    boxes = np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)
    if not np.array_equal(ours.digits[:rows], label % 10) or not np.array_equal(ours.boxes[:rows], boxes):
        raise SystemExit("the two ways have read different values")


def run() -> None:
    """Writes the file, reads it in both ways, and prints times and ratio."""
    parser = argparse.ArgumentParser(description="Times the reading of a digitStruct.mat.")
    parser.add_argument("--annotations", type=Path, help="archive of SVHN's annotations as XML; default random ones")
    parser.add_argument("--images", type=int, default=33_402, help="records of the file, 33,402 at most")
    parser.add_argument("--sample", type=int, default=1_000, help="records that the usual way reads")
    parser.add_argument("--whole", action="store_true", help="let the usual way read all records")
    options = parser.parse_args()
    count = min(options.images, sum(LENGTHS))
    sample = count if options.whole else min(options.sample, count)
    records = real_records(options.annotations, count) if options.annotations else random_records(count)
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "train" / "digitStruct.mat", Path(folder) / "cache"
        start = time.perf_counter()
        write_digit_struct(path, records)
        kind = "real" if options.annotations else "random"
        print(f"{count:,} {kind} records, {path.stat().st_size / 2**20:.0f} MiB", end="")
        print(f", written in {time.perf_counter() - start:.0f} s; h5py {h5py.__version__}", flush=True)
        start = time.perf_counter()
        ours = read_digit_struct(path, cache)
        first = time.perf_counter() - start
        print(f"{'ours, with hash and cache':<28} {first:8.2f} s   {len(ours.digits):,} digits", flush=True)
        start = time.perf_counter()
        read_digit_struct(path, cache)
        print(f"{'ours, second start':<28} {time.perf_counter() - start:8.2f} s", flush=True)
        start = time.perf_counter()
        usual = object_by_object(path, sample)
        seconds = (time.perf_counter() - start) * count / sample
        measured = "measured" if sample == count else f"extrapolated from {sample:,} records"
        print(f"{'object by object':<28} {seconds:8.2f} s   {measured}")
        check(ours, usual)
        print(f"ratio {seconds / first:.0f}")


if __name__ == "__main__":
    run()
