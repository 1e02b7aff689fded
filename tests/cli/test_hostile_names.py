"""Names from outside: refused where a shell or a terminal would obey them, quoted and escaped everywhere else."""

import csv
import io
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import write_run
from small_data import write_image_folder

from lightning_cnn.cli import main
from lightning_cnn.cli.tables import text_table
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import LONGEST_NAME, PlainStream, as_cell, check_experiment, escaped
from lightning_cnn.resume.workers import printing_to

DRY = ["submit", "--data", "Digits", "--model.architecture", "ffnn", "--dry_run"]
ATTACK = "x\ntouch pwned\n#"
CONTROLS = ["\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u202e", "\udcff"]
NASTY = "a b;touch pwned;$(touch pwned)`touch pwned`'\"&|>pwned"  # characters of a shell, none of control


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command is refused, without making anything."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(argv) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith("error: ") and line.isprintable()
    assert sorted(Path.cwd().rglob("*")) == before
    return line


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_refused(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal([*DRY, f"--partition=x{control}y"], capsys)
    shown = control.encode("unicode_escape", "surrogatepass").decode()
    assert line == f"error: --partition 'x{shown}y': contains the control character {shown}; remove it"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        *(([f"--{name}", ATTACK], f"--{name} ") for name in ("account", "qos", "constraint", "setup", "runs_dir")),
        *(([f"--{name}", ATTACK], f"--{name} ") for name in ("experiment", "project", "data.root")),
        (["--ckpt_path", ATTACK], "--ckpt_path "),
        (["--sbatch", f"comment={ATTACK}"], "--sbatch "),
        (["--tags", json.dumps([ATTACK])], "--tags "),
        (["--checkpoint.monitor", ATTACK], "--checkpoint.monitor "),
        (["--trainer.default_root_dir", ATTACK], "--trainer.default_root_dir "),
        (["--resume", ATTACK], "--resume "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_option(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal([*DRY, *words], capsys)
    assert line.startswith(f"error: {what}") and "x\\ntouch pwned\\n#" in line


@pytest.mark.parametrize("verb", [DRY, ["sweep", "--data", "Digits", "--search", "model.lr=0.1,0.2"], ["train"]])
@pytest.mark.parametrize("name", ["runs_dir", "experiment", "project"])
def test_names_in_a_file(verb: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.yaml").write_text(f"data: Digits\n{name}: {json.dumps(ATTACK)}\n")
    assert refusal([*verb, "--config", "x.yaml"], capsys).startswith(f"error: --{name} 'x\\ntouch pwned\\n#': ")


@pytest.mark.parametrize(
    ("variable", "argv"),
    [
        ("LIGHTNING_CNN_RUNS", DRY),
        ("LIGHTNING_CNN_RUNS", ["list", "runs"]),
        ("LIGHTNING_CNN_RUN", ["train", "--data", "Digits"]),
        ("LIGHTNING_CNN_DATA", ["train", "--data", "MNIST"]),
        ("LIGHTNING_CNN_DATA", ["train", "--data", "ImageFolder"]),
    ],
)
def test_variables(
    variable: str, argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, ATTACK)
    assert refusal(argv, capsys).startswith(f"error: ${variable} 'x\\ntouch pwned\\n#': contains the control character")


def test_the_working_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A relative folder becomes part of the script by it."""
    (tmp_path / ATTACK).mkdir()
    os.chdir(tmp_path / ATTACK)
    assert "the folder '" in refusal(DRY, capsys)


@pytest.mark.parametrize("name", ["", " ", "..", ".", "-rf", "a/b", "..\\b", "x" * (LONGEST_NAME + 1), "ü\n", "☃" * 80])
def test_names_of_experiments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError):
        check_experiment(name, "--experiment")
    assert "--experiment" in refusal([*DRY, f"--experiment={name}"], capsys)
    if name.strip(" .") and "/" not in name and len(name) < LONGEST_NAME:  # as that of a file
        Path(f"{name}.yaml").write_text("data: Digits\n")
        refusal([*DRY, f"--config=./{name}.yaml"], capsys)


def test_the_script_runs_nothing_but_srun(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Run by bash, with a program in the place of srun that writes down its words."""
    (tmp_path / "bin").mkdir()
    recorder = tmp_path / "bin" / "srun"
    recorder.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open('words.json', 'w'))\n")
    recorder.chmod(0o755)
    file = f"{NASTY.replace('/', '')}.yaml"
    Path(file).write_text("data: Digits\nmodel.architecture: ffnn\n")
    names = {name: f"{name} {NASTY}" for name in ("partition", "account", "qos", "constraint")}
    words = [word for name, value in names.items() for word in (f"--{name}", value)]
    words += ["--runs_dir", NASTY, "--config", file, "--sbatch", f"comment={NASTY}", "--cpus_per_task", "3"]
    assert main(["submit", *words, "--dry_run"]) == 0
    script = capsys.readouterr().out
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0 and done.stdout == done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"bin", file, "words.json"}
    srun = json.loads(Path("words.json").read_text())
    logs = Path(srun[-1])
    assert logs.parent == tmp_path / NASTY / Path(file).stem / "slurm"
    assert srun[srun.index("--output") + 1] == f"{logs}/%j_%t_log.out"
    flags = dict(
        shlex.split(line.removeprefix("#SBATCH --"))[0].partition("=")[::2]
        for line in script.splitlines()
        if line.startswith("#SBATCH")
    )
    assert flags.items() >= (names | {"comment": NASTY, "output": f"{logs}/%j_0_log.out"}).items()
    assert len(flags) == sum(line.startswith("#") for line in script.splitlines()) - 3  # the others are comments


@pytest.mark.parametrize("sign", ["%u", "\\"])
def test_patterns_of_slurm(sign: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "where Slurm expands" in refusal([*DRY, "--runs_dir", f"runs{sign}"], capsys)


def test_a_printed_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--data", "Digits", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    assert main(["train", *short, "--wandb", "disabled", "--runs_dir", NASTY]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    (best,) = Path(NASTY).glob("*/*/checkpoints/best.ckpt")
    words = shlex.split(line)
    assert words[words.index("--ckpt_path") + 1] == str(best)


# what is printed

EVIL = "cat\x1b]0;title\x07\x9b31m\u202e\nerror: all is lost\r"


def controls(text: str) -> set[str]:
    return {character for character in text if not character.isprintable()}


def test_escaped() -> None:
    assert escaped(EVIL) == "cat\\x1b]0;title\\x07\\x9b31m\\u202e\\nerror: all is lost\\r"
    assert escaped("Käse 猫 \u05d7\u05ea 👩\u200d🔬") == "Käse 猫 \u05d7\u05ea 👩\u200d🔬"
    assert text_table([["name", "n"], [EVIL, "1"]]).splitlines()[1].startswith("cat\\x1b")


def test_a_stream() -> None:
    stream = io.StringIO()
    plain = PlainStream(stream)
    print(f"a\t{EVIL}b", file=plain)
    assert stream.getvalue() == "a\tcat\\x1b]0;title\\x07\\x9b31m\\u202e\nerror: all is lost\\rb\n"
    stream.seek(0)
    stream.truncate()
    for word in ("\r 50%", "\n", "\x1b[A", "\x1b[A\x1b[A"):  # tqdm
        plain.write(word)
    assert stream.getvalue() == "\r 50%\n\x1b[A\x1b[A\x1b[A"
    plain.styled = True
    plain.write("\x1b[32mgreen\x1b[0m\x1b]0;title\x07")
    assert stream.getvalue().endswith("\x1b[32mgreen\x1b[0m\\x1b]0;title\\x07")


def test_a_log_file_holds_no_escapes(tmp_path: Path) -> None:
    with printing_to(tmp_path / "log.txt"):
        print(EVIL)
        print(EVIL, file=sys.stderr)
    assert controls((tmp_path / "log.txt").read_text()) == {"\n"}


def test_a_handler_of_several_loggers_gets_its_stream_back(tmp_path: Path) -> None:
    handler = logging.StreamHandler(stream := io.StringIO())
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    for logger in loggers:
        logger.addHandler(handler)
    with printing_to(tmp_path / "log.txt"):
        assert handler.stream is not stream
    for logger in loggers:
        logger.removeHandler(handler)
    assert handler.stream is stream


def test_a_log_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "log.txt").symlink_to("mine")
    with pytest.raises(OSError, match="symbolic link"), printing_to(tmp_path / "log.txt"):
        print("x")
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    "argv", [["list", "runs"], ["list"], ["compare"], ["compare", "--csv"], ["compare", "nothing\u2029like"], [EVIL]]
)
def test_a_run_from_elsewhere(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(Path("runs"), "exp/one", {"model": {"architecture": EVIL}}, [(0.5, 0.9)])
    write_run(Path("runs"), "exp/two", {"model": {"architecture": "lenet5"}}, [(0.4, 0.8)])
    record = json.loads((folder / "run.json").read_text())
    record |= {
        "name": EVIL,
        "error": EVIL,
        "metrics": {f"val/{EVIL}": 0.5, "val/acc": 0.9},
        "best": {"metric": EVIL, "value": 0.3, "epoch": 1},
    }
    (folder / "run.json").write_text(json.dumps(record))
    main(argv)
    out, err = capsys.readouterr()
    assert controls(out + err) <= {"\n"} and not any(line.startswith("error: all") for line in err.splitlines())
    if argv == ["list", "runs"]:
        assert "cat\\x1b]0;title\\x07" in out and len(out.splitlines()) == 2


def test_a_page_of_a_run_from_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    script = "<script>alert(1)</script>"
    for number in (1, 2):
        settings = {"model": {"architecture": f"{script}{number}", script: number}}
        folder = write_run(Path("runs"), f"exp/{number}", settings, [(0.5, 0.9), (0.4, 0.8)])
        record = json.loads((folder / "run.json").read_text())
        record |= {"name": f'"><img src=x onerror=alert(1)>{script}', "metrics": {f"val/{script}": 0.5}}
        record |= {"best": {"metric": script, "value": 0.1, "epoch": script}, "error": script}
        (folder / "run.json").write_text(json.dumps(record))
    assert main(["compare", "--html", "page.html"]) == 0
    text = Path("page.html").read_text()
    assert "<script>alert" not in text and "<img" not in text and "&lt;script&gt;alert(1)" in text


# CSV


@pytest.mark.parametrize("text", ["=cmd()", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "--1"])
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.25", "+1e-5", "-inf", "1", "cat", "a=b", "'", "", 3, -0.5, None, True])
def test_numbers_and_other_text_stay(value: object) -> None:
    assert as_cell(value) is value


def test_the_csv_of_predict(capsys: pytest.CaptureFixture[str]) -> None:
    """A class and a file with the names of formulas, a file name with escapes, and one that is no text."""
    write_image_folder(Path("data"), classes=2)
    for part in ("train", "test"):
        (Path("data") / part / "digit_0").rename(Path("data") / part / "=cmd()")
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--data.image_size", "20"]
    assert main(["train", "--data", "ImageFolder", *short, "--wandb", "disabled"]) == 0
    (best,) = Path("runs").glob("*/*/checkpoints/best.ckpt")
    os.chdir("data/test/=cmd()")
    images = sorted(Path().iterdir())
    names = ["=1+1.png", f"x{EVIL}.png".replace("/", ""), os.fsdecode(b"\xff.png")]
    for image, name in zip(images, names, strict=False):
        image.rename(name)
    capsys.readouterr()
    assert main(["predict", "--ckpt_path", str(Path("../../..") / best), "--images", *names]) == 0
    out = capsys.readouterr().out
    assert controls(out) == {"\n"} and len(out.splitlines()) == 4
    with open("predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["'=1+1.png", names[1], "\\udcff.png"]
    assert {row["class"] for row in rows} <= {"'=cmd()", "digit_1"}
    assert {row["class_2"] for row in rows} | {row["class"] for row in rows} == {"'=cmd()", "digit_1"}
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_the_csv_of_compare(capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("=cmd()", "-1")):
        settings = {"model": {"architecture": name}}
        write_run(Path("runs"), f"exp/{number}", settings, [(-0.5, 0.9)], metrics={"val/loss": -0.5})
    assert main(["compare", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sorted(row["model.architecture"] for row in rows) == ["'=cmd()", "-1"]
    assert {row["val/loss"] for row in rows} == {"-0.5"}
