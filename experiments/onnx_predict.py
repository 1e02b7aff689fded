"""Classifies images or their pixels, reads numbers, or finds objects with a file of `lightning-cnn export`; no torch.

    pip install onnxruntime pillow
    python experiments/onnx_predict.py model.onnx photo.jpg another.png

The file itself says how its images are prepared and what its classes are called.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

try:
    import numpy as np
    import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from PIL import Image, ImageOps
except ImportError as missing:
    sys.exit(f"error: {missing.name} is not installed: pip install onnxruntime pillow")


def main() -> None:
    """Prints a line for each image: its most probable classes, its number, or its objects."""
    parser = argparse.ArgumentParser(description="Runs an exported network on image files, without torch.")
    parser.add_argument("model", help="an .onnx file of `lightning-cnn export`")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--top_k", type=int, default=1, help="how many of the most probable classes to print")
    parser.add_argument("--masks", default="masks", help="of a segmentation: the folder to write the masks to")
    parser.add_argument("--overlap", type=int, default=64, help="of a segmentation: pixels that tiles share")
    parser.add_argument("--batch_size", type=int, default=16, help="images to compute at once")
    args = parser.parse_args()
    session = open_model(args.model)
    carried = session.get_modelmeta().custom_metadata_map
    if not {"class_names", "preprocessing"} <= carried.keys():
        fail(f"{args.model} has no class names or preprocessing in it: write it with `lightning-cnn export`")
    names, preprocessing = json.loads(carried["class_names"]), json.loads(carried["preprocessing"])
    heads = json.loads(carried.get("heads", "[]"))
    detector = json.loads(carried.get("detector", "{}"))
    if len(session.get_outputs()[0].shape) == 4:
        taken: set[str] = set()
        for path in args.images:
            print(plain(path), *segment(session, path, preprocessing, names, args, taken), sep="  ")
        return
    step = max(1, args.batch_size)
    for paths in (args.images[first : first + step] for first in range(0, len(args.images), step)):
        photos = [decode(path, preprocessing) for path in paths]
        images = np.stack([prepare(photo, preprocessing) for photo in photos])
        (logits,) = session.run(None, {"images": images})
        if detector:
            for path, photo, rows in zip(paths, photos, logits, strict=True):
                boxes, labels, scores = find_objects(rows, detector)
                boxes = to_photo(boxes, photo.size, preprocessing["image_size"])
                print(plain(path), *objects_text(boxes, labels, scores, names, detector["reads"]), sep="  ")
            continue
        if heads:
            for path, row in zip(paths, logits, strict=True):
                print(plain(path), *read_number(row, heads), sep="  ")
            continue
        if carried.get("labels") == "numbers":
            for path, row in zip(paths, logits, strict=True):
                numbers = zip(names, row, strict=True)
                print(plain(path), *(f"{plain(name)} {number:.6g}" for name, number in numbers), sep="  ")
            continue
        if carried.get("activation") == "sigmoid":
            for path, row in zip(paths, logits, strict=True):
                print(plain(path), *labels_text(row, names), sep="  ")
            continue
        all_shares = logits if carried.get("activation") == "none" else softmax(logits)
        for path, shares in zip(paths, all_shares, strict=True):
            best = np.argsort(-shares, kind="stable")[: max(1, args.top_k)]
            print(plain(path), *(f"{plain(names[number])}  {shares[number]:.1%}" for number in best), sep="  ")


def open_model(path: str) -> Any:
    """Reads the network into onnxruntime."""
    if not Path(path).is_file():
        fail(f"there is no file {path}")
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes are not part of its interface
        fail(f"{path} can't be read as ONNX ({str(error).splitlines()[0]})")


def decode(path: str, how: dict[str, Any]) -> Image.Image:
    """Decodes an image file, in any format that Pillow reads, as gray or color.

    Args:
        path: The file.
        how: The metadata `preprocessing` of the network.
    """
    try:
        # of a path Pillow would map the file into memory, and mix up the pixels of a TIFF turned by a quarter
        with Path(path).open("rb") as content, Image.open(content) as file:
            image = eight_bit(ImageOps.exif_transpose(file), getattr(file, "tag_v2", {}))
        if image.mode == "LAB":
            image = image.convert("RGB")
        if how.get("background") and image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, how["background"]), image)
        image.info.pop("transparency", None)
        return image.convert("L" if how["in_channels"] == 1 else "RGB")
    except Exception as error:  # on a damaged file Pillow raises nearly everything
        fail(f"can't decode the image {path} ({error})")


def prepare(image: Image.Image, how: dict[str, Any]) -> Any:
    """Prepares an image exactly as in training.

    Args:
        image: What `decode` returns.
        how: The metadata `preprocessing` of the network.

    Returns:
        float32, `(in_channels, image_size, image_size)`; with `resize` keep of the own height and width of the image.
    """
    margin = how.get("margin", 0)
    side = how["image_size"] - 2 * how["padding"] + 2 * margin
    method = Image.Resampling.BICUBIC if how["interpolation"] == "bicubic" else Image.Resampling.BILINEAR
    if how["resize"] == "crop":
        image = ImageOps.fit(image, (side, side), method, bleed=(1 - how["crop_share"]) / 2)
    elif how["resize"] == "pad":
        image = pad(image, side, method)
    elif how["resize"] != "keep":
        image = image.resize((side, side), method)
    pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1).transpose(2, 0, 1) / 255
    pixels = pixels[:, margin : image.height - margin, margin : image.width - margin]
    border = (how["padding"], how["padding"])
    pixels = np.pad(pixels, ((0, 0), border, border))
    if how.get("per_image"):
        return (pixels - pixels.mean()) / max(pixels.std(), 1 / 255)
    mean, std = (np.float32(how[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return (pixels - mean) / std


def eight_bit(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Scales pixels of 12 or 16 bits, and floating-point ones, 0 to 1, to 0 to 255; `tags` are those of a TIFF."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    # bits per sample, 16 unless it says so, and sample format, 1 for unsigned
    bits, sample = (int(np.ravel(tags.get(tag, usual))[0]) for tag, usual in ((258, 16), (339, 1)))
    pixels, bits = np.asarray(image), min(bits, 16)
    most = 1 if image.mode == "F" else 2**bits - 1
    if tags and image.mode == "I" and sample == 1:
        pixels = pixels.view(np.uint32)
    if not ((pixels >= 0) & (pixels <= most)).all():
        raise ValueError(f"its pixels reach from {pixels.min():g} to {pixels.max():g}, expected 0 to {most:,}")
    if tags.get(262) == 0:  # white is zero
        pixels = most - pixels
    return Image.fromarray((np.rint(pixels * 255) if image.mode == "F" else pixels >> bits - 8).astype(np.uint8))


def pad(image: Image.Image, side: int, method: Image.Resampling) -> Image.Image:
    """The image in the middle of a black square, at least one pixel wide and high."""
    width, height = (max(1, round(edge / max(image.size) * side)) for edge in image.size)
    square = Image.new(image.mode, (side, side))
    square.paste(image.resize((width, height), method), (round((side - width) / 2), round((side - height) / 2)))
    return square


def segment(
    session: Any, path: str, how: dict[str, Any], names: list[str], args: argparse.Namespace, taken: set[str]
) -> list[str]:
    """Writes the class of each pixel of an image, tile by tile; neighboring tiles are blended as by `predict --tile`.

    Args:
        session: The network.
        path: The image file.
        how: The metadata `preprocessing` of the network.
        names: Names of the classes.
        args: The options of the command line.
        taken: Names of the masks that have been written; another one of the same name is numbered.

    Returns:
        The file that was written, and the shares of the largest classes as text.
    """
    side = how["image_size"]
    overlap = min(max(args.overlap, 0), side // 2)
    images = prepare(decode(path, how), how)
    _, height, width = images.shape
    # what lies beyond the image repeats its border
    ends = [
        max(side, -(-(length - overlap) // (side - overlap)) * (side - overlap) + overlap) for length in (height, width)
    ]
    images = np.pad(images, ((0, 0), (0, ends[0] - height), (0, ends[1] - width)), "edge")
    inside = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    line = np.clip((inside - overlap / 3) / max(overlap / 3, 1), 1e-6, 1).astype(np.float32)
    weight, total = np.outer(line, line), np.zeros((len(names), *images.shape[1:]), np.float32)
    places = [range(0, end - side + 1, side - overlap) for end in ends]
    for top, left in ((top, left) for top in places[0] for left in places[1]):
        (logits,) = session.run(["logits"], {"images": images[None, :, top : top + side, left : left + side]})
        total[:, top : top + side, left : left + side] += weight * softmax(logits)[0]
    mask = total[:, :height, :width].argmax(0).astype(np.uint8)
    Path(args.masks).mkdir(parents=True, exist_ok=True)
    name, number = Path(path).stem, 1
    while name in taken:
        number += 1
        name = f"{Path(path).stem}_{number}"
    taken.add(name)
    target = Path(args.masks) / f"{name}_mask.png"
    Image.fromarray(mask).save(target)
    shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
    best = np.argsort(-shares, kind="stable")[: max(1, args.top_k)]
    return [plain(str(target)), *(f"{plain(names[number])}  {shares[number]:.1%}" for number in best)]


def read_number(logits: Any, heads: list[int]) -> tuple[str, str]:
    """The most probable number of one image, by P(length) times the probabilities of so many digits.

    Args:
        logits: `(sum of the heads,)`.
        heads: Sizes of the heads: the length, then each digit, with or without an output for none.

    Returns:
        The number and its probability as text.
    """
    length, *digits = np.split(logits, np.cumsum(heads)[:-1])
    shares = [softmax(digit[None])[0][:10] for digit in digits]
    whole = softmax(length[None])[0] * np.cumprod([1.0, *(share.max() for share in shares)])
    count = int(whole.argmax())
    return "".join(str(share.argmax()) for share in shares[:count]), f"{whole[count]:.1%}"


def find_objects(rows: Any, how: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Selects the detections in one image from what the network returns.

    A box is a candidate for each class with a score above `score`. Of each level of the pyramid, or of each class where
    there are no levels, the `candidates` with the highest scores remain. Non-maximum suppression removes the less
    confident of two boxes of a class with an IoU above `overlap`. Of the rest, the `detections` with the highest scores
    remain, and of these the ones with at least `min_score`. A detector that reads numbers then removes the less
    confident of two boxes of any class that overlap, and orders the boxes from left to right.

    Args:
        rows: float32 `(boxes, 4 + classes)`: left, top, right, bottom in pixels of the prepared image, and the scores.
        how: The metadata `detector` of the network.

    Returns:
        The detections: boxes `(k, 4)`, classes `(k,)` and scores `(k,)`, the most confident first.
    """
    scores, borders = rows[:, 4:], np.cumsum([0, *how["levels"]])
    groups = [(slice(a, b), slice(None)) for a, b in itertools.pairwise(borders)]
    groups = groups or [(slice(None), slice(label, label + 1)) for label in range(scores.shape[1])]
    found = []  # the number of the box, and the class
    for boxes, classes in groups:
        part = scores[boxes, classes]
        box, label = np.nonzero(part > how["score"])
        best = np.argsort(-part[box, label], kind="stable")[: how["candidates"]]
        found.append(np.stack([box[best] + (boxes.start or 0), label[best] + (classes.start or 0)], 1))
    box, label = np.concatenate(found).T
    order = np.argsort(-scores[box, label], kind="stable")
    box, label = box[order], label[order]
    kept = suppress(rows[box, :4], label, how["overlap"])[: how["detections"]]
    kept = kept[scores[box[kept], label[kept]] >= how["min_score"]]
    box, label = box[kept], label[kept]
    if how["reads"]:
        kept = suppress(rows[box, :4], np.zeros_like(label), how["overlap"])
        kept = kept[np.argsort(rows[box[kept], 0] + rows[box[kept], 2], kind="stable")]
        box, label = box[kept], label[kept]
    return rows[box, :4], label, scores[box, label]


def suppress(boxes: Any, labels: Any, overlap: float) -> Any:
    """Which boxes remain after non-maximum suppression within each class.

    Args:
        boxes: `(k, 4)`, the most confident first.
        labels: `(k,)`.
        overlap: Largest IoU of two boxes of a class that both remain.

    Returns:
        Their positions, in order.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept, left = [], np.arange(len(boxes))
    while len(left):
        first, others = left[0], left[1:]
        kept.append(first)
        sides = np.minimum(boxes[first, 2:], boxes[others, 2:]) - np.maximum(boxes[first, :2], boxes[others, :2])
        inside = sides.clip(0).prod(1)
        share = inside / np.maximum(areas[first] + areas[others] - inside, 1e-12)
        left = others[(share <= overlap) | (labels[others] != labels[first])]
    return np.array(kept, dtype=np.int64)


def to_photo(boxes: Any, size: tuple[int, int], side: int) -> Any:
    """Boxes in the square that `pad` makes of a photo, in pixels of the photo.

    Args:
        boxes: `(k, 4)`.
        size: Width and height of the photo.
        side: Side of the square.
    """
    inner = np.array([max(1, round(edge / max(size) * side)) for edge in size])
    offset = np.array([round((side - edge) / 2) for edge in inner])
    found = (boxes - np.tile(offset, 2)) / np.tile(inner / size, 2)
    return found.clip(0, np.tile(size, 2))


def objects_text(boxes: Any, labels: Any, scores: Any, names: list[str], reads: bool) -> list[str]:
    """The objects of one image as `predict` writes them: how many and the highest score, or the number; the boxes."""
    first = "".join(names[label] for label in labels) if reads else str(len(labels) or "")
    share = scores.prod() if reads else scores.max(initial=0)
    rows = [
        f"{names[label].replace(' ', '_').replace(':', '_')}:{':'.join(f'{edge:.0f}' for edge in box)}:{score:.3f}"
        for label, box, score in zip(labels, boxes, scores, strict=True)
    ]
    return [plain(first or "nothing"), f"{share if first else 0:.1%}", plain(" ".join(rows))]


def labels_text(logits: Any, names: list[str]) -> list[str]:
    """The labels of one image, and the probability of exactly these.

    Args:
        logits: `(labels,)`.
        names: Of the labels.
    """
    shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
    text = " ".join(name for name, share in zip(names, shares, strict=True) if share > 0.5)
    return [plain(text or "nothing"), f"{np.maximum(shares, 1 - shares).prod():.1%}"]


def softmax(logits: Any) -> Any:
    """Probabilities of logits, both `(n, classes, ...)`."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def plain(text: str) -> str:
    """Without characters that a terminal obeys: a name may hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def fail(message: str) -> NoReturn:
    """Ends the program with one line."""
    print(f"error: {plain(message)}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
