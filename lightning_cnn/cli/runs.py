"""`lightning-cnn runs`: tags, notes and removes runs."""

import shlex
import sys
from pathlib import Path

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cli.tables import text_table
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.resume.files import size_text
from lightning_cnn.tracking.labels import Labels
from lightning_cnn.tracking.record import default_runs_dir
from lightning_cnn.tracking.removal import disk_used, remove_runs
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import find_run, select_runs

ACTIONS = ("tag", "note", "remove")


def main(verb: str, argv: list[str]) -> int:
    """Changes runs.

    Args:
        verb: `runs`.
        argv: The words after it.

    Raises:
        UserError: If there is no such run, or it can't be changed.
    """
    parser = VerbParser(verb, "Tags, notes or removes runs.")
    parser.add_argument("action", metavar="ACTION", help=f"one of {', '.join(ACTIONS)}")
    parser.add_argument("run", metavar="RUN", help="run id, EXPERIMENT/ID, or folder")
    parser.add_argument("words", nargs="*", metavar="WORD", help="tags; the note; or more runs to remove")
    parser.add_argument("--drop", nargs="+", default=[], metavar="TAG", help="with tag: tags to drop")
    parser.add_argument("--yes", action="store_true", help="with remove: do not ask")
    parser.add_argument("--runs_dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of all runs")
    args = parser.parse_args(argv)
    if args.action not in ACTIONS:
        hint = did_you_mean(args.action, ACTIONS) or f"; choose one of {', '.join(ACTIONS)}"
        raise UserError(f"can't {args.action!r} runs{hint}")
    if args.action == "remove":
        return _remove(select_runs([args.run, *args.words], args.runs_dir), args.yes)
    run = find_run(args.runs_dir, args.run)
    labels = Labels.of(run)
    if args.action == "tag":
        if not (args.words or args.drop):
            raise UserError(f"which tags? `lightning-cnn runs tag {shlex.quote(args.run)} TAG`, or --drop TAG")
        labels.change(args.words, args.drop)
    else:
        labels.change(note=" ".join(args.words))
    labels.write(run.folder)
    print(f"{run.label}  {', '.join(labels.tags) or 'no tags'}  {labels.note or 'no note'}")
    return 0


def _remove(runs: list[RunFolder], is_sure: bool) -> int:
    sizes = [disk_used(run.folder) for run in runs]
    total = f"{len(runs)} run{'s' if len(runs) != 1 else ''}, {size_text(sum(sizes))}"
    for run in runs:
        run.check_free()
    if not is_sure:
        if not sys.stdin.isatty():
            raise UserError(f"can't confirm the removal of {total}, as the input is not a terminal: add --yes")
        rows = [(run.label, run.status, size_text(size)) for run, size in zip(runs, sizes, strict=True)]
        print(text_table(rows))
        if input(f"remove {total}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    freed = remove_runs(runs)
    print(f"removed {len(runs)} run{'s' if len(runs) != 1 else ''}, {size_text(freed)} freed")
    return 0
