"""Classifies image files, or reads house numbers, with a network that `lightning-cnn export` wrote; needs no torch.

    pip install onnxruntime pillow
    python experiments/onnx_predict.py model.onnx photo.jpg another.png

The file itself says how its images are prepared and what its classes are called.
"""

import argparse
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
    """Prints a line for each image: its most probable classes."""
    parser = argparse.ArgumentParser(description="Classifies image files with an exported network, without torch.")
    parser.add_argument("model", help="an .onnx file of `lightning-cnn export`")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--top_k", type=int, default=1, help="how many of the most probable classes to print")
    parser.add_argument("--batch_size", type=int, default=16, help="images to compute at once")
    args = parser.parse_args()
    session = open_model(args.model)
    carried = session.get_modelmeta().custom_metadata_map
    if not {"class_names", "preprocessing"} <= carried.keys():
        fail(f"{args.model} has no class names or preprocessing in it: write it with `lightning-cnn export`")
    names, preprocessing = json.loads(carried["class_names"]), json.loads(carried["preprocessing"])
    heads = json.loads(carried.get("heads", "[]"))
    step = max(1, args.batch_size)
    for paths in (args.images[first : first + step] for first in range(0, len(args.images), step)):
        images = np.stack([prepare(path, preprocessing) for path in paths])
        (logits,) = session.run(["logits"], {"images": images})
        if heads:
            for path, row in zip(paths, logits, strict=True):
                print(plain(path), *read_number(row, heads), sep="  ")
            continue
        for path, shares in zip(paths, softmax(logits), strict=True):
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


def prepare(path: str, how: dict[str, Any]) -> Any:
    """Decodes an image file and prepares it exactly as in training.

    Args:
        path: Any format that Pillow reads.
        how: The metadata `preprocessing` of the network.

    Returns:
        float32, `(in_channels, image_size, image_size)`.
    """
    try:
        # of a path Pillow would map the file into memory, and mix up the pixels of a TIFF turned by a quarter
        with Path(path).open("rb") as content, Image.open(content) as file:
            image = eight_bit(ImageOps.exif_transpose(file), getattr(file, "tag_v2", {}))
        image.info.pop("transparency", None)
        image = image.convert("L" if how["in_channels"] == 1 else "RGB")
    except Exception as error:  # on a damaged file Pillow raises nearly everything
        fail(f"can't decode the image {path} ({error})")
    margin = how.get("margin", 0)
    side = how["image_size"] - 2 * how["padding"] + 2 * margin
    method = Image.Resampling.BICUBIC if how["interpolation"] == "bicubic" else Image.Resampling.BILINEAR
    if how["resize"] == "crop":
        image = ImageOps.fit(image, (side, side), method, bleed=(1 - how["crop_share"]) / 2)
    elif how["resize"] == "pad":
        image = pad(image, side, method)
    else:
        image = image.resize((side, side), method)
    pixels = np.asarray(image, dtype=np.float32).reshape(side, side, -1).transpose(2, 0, 1) / 255
    pixels = pixels[:, margin : side - margin, margin : side - margin]
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


def softmax(logits: Any) -> Any:
    """Probabilities of logits, both `(n, classes)`."""
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
