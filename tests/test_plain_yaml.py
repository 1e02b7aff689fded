"""YAML from outside: plain data of bounded size, or an error of YAML, whatever the text is."""

import os
import random
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from lightning_cnn.plain_yaml import DEEPEST, LARGEST, load_yaml, load_yaml_file, problem

NAMES = "abcdefghijklmnopqrst"
LAUGHS = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in pairwise(NAMES))
REFUSED = {
    "brackets": ("[" * 1000 + "]" * 1000, "nested"),
    "braces": ("{a: " * 200_000, "nested"),
    "dashes": ("- " * 500, "nested"),
    "laughs": (LAUGHS, "holds over 100,000 values"),
    "many": ("[" + "1," * LARGEST + "]", "holds over 100,000 values"),
    "itself": ("&a [*a]", "contains itself"),
    "twice": ("trainer: {max_epochs: 1}\ndata: Digits\ntrainer: {devices: 1}\n", "line 3 gives 'trainer' twice"),
    "twice within": ("a:\n  b: 1\n  'b': 2\n", "line 3 gives 'b' twice"),
    "int": ("!!int abc", "not YAML"),
    "date": ("2001-13-45", "not YAML"),
    "timestamp": ("!!timestamp x", "not YAML"),
    "digits": ("9" * 5000, "not YAML"),
    "object": ("!!python/object/apply:os.mkdir [harmed]", "not YAML"),
    "open": ("{", "not YAML"),
    "unknown alias": ("*a", "not YAML"),
    "list as a key": ("? [1]\n: 2", "not YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, telling = REFUSED[name]
    start = time.process_time()
    with pytest.raises(yaml.YAMLError) as error:
        load_yaml(text)
    assert telling in problem(error.value) and "\n" not in problem(error.value)
    assert time.process_time() - start < 5
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEPEST + "]" * DEEPEST,
        "a: &a {b: 1}\nc: {<<: *a, d: [*a, *a]}\n",
        "x: {a: 1}\ny: {a: 1}\n? {a: b}.\n",
        "",
        "# nothing",
        "2001-12-24",
        "'a': [1, 2.5, null, true, text]\n",
        "a: &x 1\nb: &x 2\nc: [*x, *x]\n",
    ],
)
def test_the_same_as_safe_load(text: str) -> None:
    try:
        expected = yaml.safe_load(text)
    except yaml.YAMLError:
        with pytest.raises(yaml.YAMLError):
            load_yaml(text)
        return
    assert load_yaml(text) == expected


def test_random_texts_end_in_data_or_an_error_of_yaml() -> None:
    text = "a|: |- |[|]|{|}|, |\n|  |&a |*a|!!int |!!set |? |'|\"|>|<<|1e5|~|%|@|\t|#|2001-99-99"
    pieces = text.split("|")
    draw = random.Random(21)
    for _ in range(3000):
        text = "".join(draw.choices(pieces, k=draw.randint(1, 25)))
        try:
            load_yaml(text)
        except yaml.YAMLError as error:
            assert problem(error)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UTF-8 in any locale, with or without a byte order mark; a pipe is read once and not waited for without end."""
    path = tmp_path / "a.yaml"
    path.write_bytes("name: Ä猫\n".encode())
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    assert load_yaml_file(path) == {"name": "Ä猫"} == load_yaml_file(path, wait=1)
    path.write_bytes(b"\xef\xbb\xbfname: 1\n")
    assert load_yaml_file(path) == {"name": 1}
    path.write_bytes("name: Ä".encode("latin-1"))
    with pytest.raises(yaml.YAMLError, match="byte 6 is not UTF-8"):
        load_yaml_file(path)
    for strange in (tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError):
            load_yaml_file(strange)
        with pytest.raises(OSError):
            load_yaml_file(strange, wait=1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        load_yaml_file(pipe)
    with pytest.raises(OSError, match=r"nothing came within 0\.2 seconds"):
        load_yaml_file(pipe, wait=0.2)
    writer = threading.Thread(target=pipe.write_text, args=("name: 2\n",))
    writer.start()
    assert load_yaml_file(pipe, wait=5) == {"name": 2}
    writer.join()
