"""Recall by size, against plain loops over pixels and over pairs of boxes."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_cnn.evaluation.object_sizes import Matches, match_boxes, match_masks, recall_by_size
from lightning_cnn.figures.object_sizes import recall_bars
from lightning_cnn.options import IGNORE


def components(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Connected pixels, also across corners, by filling one after the other."""
    left, found = {(int(row), int(column)) for row, column in np.argwhere(mask)}, []
    while left:
        waiting, filled = [left.pop()], set()
        while waiting:
            row, column = waiting.pop()
            filled.add((row, column))
            for near in [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    waiting.append(near)
        found.append(filled)
    return found


def masks_by_hand(predicted: NDArray[Any], true: NDArray[Any]) -> tuple[list[tuple[int, bool]], int]:
    """Size of each true object and whether it is found; and the false ones."""
    answers, objects, hits, rows = components(predicted == 1), components(true == 1), set(), []
    unknown = {(int(row), int(column)) for row, column in np.argwhere(true == IGNORE)}
    for thing in objects:
        right = [n for n, a in enumerate(answers) if len(a & thing) > 0.5 * len((a - unknown) | thing)]
        assert len(right) <= 1
        hits.update(right)
        sides = [max(pixel[axis] for pixel in thing) - min(pixel[axis] for pixel in thing) + 1 for axis in (0, 1)]
        rows.append((max(sides), bool(right)))
    false = [n for n, a in enumerate(answers) if n not in hits and 2 * len(a - unknown) >= len(a)]
    return sorted(rows), len(false)


def random_masks(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rectangles, and the same moved a little, some left out and others added; parts are ignored."""
    random = np.random.default_rng(seed)
    true, predicted = np.zeros((2, 40, 50), dtype=np.int64)
    for _ in range(7):
        top, left, height, width = random.integers([0, 0, 1, 1], [36, 46, 12, 14])
        true[top : top + height, left : left + width] = 1
        if random.random() < 0.8:
            down, right = random.integers(-1, 2, 2).clip([-top, -left], None)
            predicted[top + down : top + down + height, left + right : left + right + width] = 1
    top, left = random.integers(0, 30, 2)
    predicted[top : top + 3, left : left + 5] = 1
    true[top : top + int(random.integers(0, 9)), left : left + 8] = IGNORE
    return predicted, true


@pytest.mark.parametrize("seed", range(30))
def test_masks_against_a_loop(seed: int) -> None:
    predicted, true = random_masks(seed)
    matches = match_masks(predicted, true)
    rows, false = masks_by_hand(predicted, true)
    assert sorted(zip(matches.sizes.tolist(), matches.found.tolist(), strict=True)) == rows and matches.false == false


def test_the_random_masks_have_all_cases() -> None:
    every = Matches.joined(match_masks(*random_masks(seed)) for seed in range(30))
    assert 0.2 < every.found.mean() < 0.95 and every.false > 10 and len(every.sizes) > 80


def boxes_by_hand(found: Any, scores: Any, true: Any, crowds: Any) -> tuple[list[bool], int]:
    def area(box: Any) -> float:
        return float((box[2] - box[0]) * (box[3] - box[1]))

    def shared(a: Any, b: Any) -> float:
        return float(max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0))

    taken, false = [False] * len(true), 0
    for row in sorted(range(len(found)), key=lambda row: -scores[row]):
        best, at = 0.5, None
        for number, box in enumerate(true):
            both = shared(found[row], box)
            iou = both / (area(found[row]) + area(box) - both)
            if not taken[number] and iou >= best and (at is None or iou > best):
                best, at = iou, number
        if at is not None:
            taken[at] = True
        elif not any(shared(found[row], crowd) >= 0.5 * area(found[row]) for crowd in crowds):
            false += 1
    return taken, false


@pytest.mark.parametrize("seed", range(30))
def test_boxes_against_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 60, (int(random.integers(0, 9)), 2))
    true = np.concatenate([low, low + random.uniform(4, 30, low.shape)], 1)
    near = np.repeat(true, 2, axis=0) + random.normal(0, 2.5, (2 * len(true), 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    found = np.concatenate([near, random.uniform([0, 0, 40, 40], [30, 30, 70, 70], (3, 4))])
    scores, crowds = random.random(len(found)), [[10.0, 10, 70, 60]] * (seed % 2)
    matches = match_boxes(found, scores, true, crowds)
    taken, false = boxes_by_hand(found, scores, true, crowds)
    assert matches.found.tolist() == taken and matches.false == false
    assert matches.sizes.tolist() == [max(box[2] - box[0], box[3] - box[1]) for box in true]


def test_nothing_there_and_nothing_found() -> None:
    nothing = np.zeros((5, 6), dtype=np.int64)
    for matches in (match_masks(nothing, nothing), match_boxes([], [], [])):
        assert len(matches.sizes) == len(matches.found) == matches.false == 0
    assert match_boxes([[0, 0, 3, 3]], [0.5], []).false == 1 and match_masks(nothing + 1, nothing).false == 1
    assert match_boxes([], [], [[0, 0, 3, 5]]).found.tolist() == [False]


def test_rows_of_sizes() -> None:
    sizes = np.array([3, 7.9, 8, 15, 16, 31, 64, 500], dtype=np.float64)
    found = np.array([True, False, True, True, False, False, True, True])
    rows = recall_by_size(Matches(sizes, found, 4))
    table = [(row.low, row.high, row.objects, row.found) for row in rows]
    inf = math.inf
    assert table == [(0, 8, 2, 1), (8, 16, 2, 2), (16, 32, 2, 0), (32, 64, 0, 0), (64, inf, 2, 2)]
    assert [row.recall for row in rows[:3]] == [0.5, 1.0, 0.0] and math.isnan(rows[3].recall)
    assert [row.objects for row in recall_by_size(Matches(sizes, found, 4), (10,))] == [3, 5]


def test_the_figure_shows_each_row_with_objects() -> None:
    sizes, found = np.array([3.0, 9, 9, 70]), np.array([False, True, False, True])
    figure = recall_bars(recall_by_size(Matches(sizes, found, 0)), "test")
    (axes,) = figure.axes
    assert [patch.get_height() for patch in axes.patches] == [0.0, 0.5, 1.0]  # type: ignore[attr-defined]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "1"]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["0 to 8", "8 to 16", "16 to 32", "32 to 64", "64 and more"]
