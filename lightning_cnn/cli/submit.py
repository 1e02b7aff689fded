"""`submit`: trains on a Slurm cluster."""

import re

from lightning_cnn.cli.parser import Extending, VerbParser
from lightning_cnn.cli.slurm_options import add_slurm_options, how_to_follow, slurm_of
from lightning_cnn.errors import UserError, did_you_mean

MOST_JOBS = 1000  # of an array: as many as Slurm itself allows, unless told otherwise


def main(verb: str, argv: list[str]) -> int:
    """Submits. Returns the exit code."""
    parser = _parser(verb)
    options, rest = parser.parse_known_args(argv)
    slurm = slurm_of(options)
    seeds = _seeds(" ".join(options.array)) if options.array else []
    for option in ("--resume", "--seed_everything"):
        if seeds and any(word.split("=")[0] == option for word in rest):
            raise UserError(f"--array and {option} exclude each other: the array sets the seeds, one run each")
    from lightning_cnn.cli.words import read_words
    from lightning_cnn.config.schema import TRAIN
    from lightning_cnn.engine.submit import submit, submit_script

    try:
        config, run = read_words(TRAIN, rest).begun()
    except UserError as error:
        if found := re.match(r"unknown option `(\w+)`", str(error)):
            ours = [name for action in parser._actions for name in action.option_strings]
            if hint := did_you_mean(f"--{found[1]}", ours, count=1):
                raise UserError(f"unknown option --{found[1]}{hint}") from None
        raise
    if options.dry_run:
        print(submit_script(config, slurm, seeds=seeds, resume=run))
        return 0
    jobs = submit(config, slurm, seeds=seeds, resume=run)
    for job in jobs:
        print(f"job {job.id:<8} {f'seed {job.seed:<4} ' if seeds else ''}run folder {job.folder}")
    note = "   (_0_ is process 0; the others have logs of their own)"
    print(f"\n{how_to_follow([job.id for job in jobs], jobs[0].log, note)}")
    return 0


def _seeds(text: str) -> list[int]:
    if not re.fullmatch(r"seeds \d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*", text):
        raise UserError(f"--array {text!r}: expected seeds, such as --array seeds 0-9 or --array seeds 1,2,5-7")
    seeds: list[int] = []
    for part in text.removeprefix("seeds ").split(","):
        first, _, last = part.partition("-")
        new = range(int(first), int(last or first) + 1)
        if not new or len(seeds) + len(new) > MOST_JOBS or {*new} & {*seeds}:
            raise UserError(f"--array {text!r}: expected at most {MOST_JOBS} different seeds, in ascending ranges")
        seeds += new
    return seeds


def _parser(verb: str) -> VerbParser:
    parser = VerbParser(
        verb,
        "Trains on a Slurm cluster. Besides the options below it takes those of `train`, such as --config, --data and "
        "--model.lr, and checks them before submission. A job that reaches its time limit or is preempted saves a "
        "checkpoint, is queued again, and resumes in the same run folder, as often as needed. All machines must share "
        "the folder of all runs.",
    )
    parser.add_argument(
        "--array", nargs="+", action=Extending, metavar="seeds", help="one job and one run per seed: --array seeds 0-9"
    )
    add_slurm_options(parser)
    return parser
