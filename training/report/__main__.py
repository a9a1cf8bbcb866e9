"""`python -m training.report RUN [RUN2 ...]`: one page on how trainings went.

It reads files alone, so that a run may be looked at while it trains. Exit codes: 0 done; 2 wrong
usage, or no such run; 12 the page can't be written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.stdout import closed_pipe_ignored
from training.errors import TrainingError
from training.report.writer import NAME, write
from training.runs.catalogue import find_run

PROG = "python -m training.report"


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    parser = argparse.ArgumentParser(
        prog=prog, description="One page on how trainings went: verdict, curves, samples."
    )
    parser.add_argument(
        "run", nargs="+", metavar="RUN", help="a run's folder, or its name or number in --runs"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"default: {NAME} in the run's folder; of several runs in --runs",
    )
    options = parser.parse_args(argv)
    try:
        runs = [find_run(word, options.runs) for word in options.run]
        runs = list({run.folder.resolve(): run for run in runs}.values())
        folder = runs[0].folder if len(runs) == 1 else options.runs
        print(write(runs, options.out or folder / NAME))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
