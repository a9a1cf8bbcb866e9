"""`python -m training.runs list|compare|export|delete`: the trainings on disk.

Exit codes: 0 done; 2 wrong usage, or no such run; 4 there is no such checkpoint, or the run is
being trained; 12 a run can't be deleted as a whole; others as `python -m training.run`.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.command_line import add_to_all
from models.errors import RepositoryError
from models.repository import check_name
from models.stdout import closed_pipe_ignored
from training.errors import CheckpointError, ConfigError, TrainingError, UnsavedError
from training.evaluation import PLANS
from training.finite_json import as_json
from training.runs.catalogue import GONE, Run, find_run, labels_of, leftovers, runs_in, same_value
from training.runs.folders import mark_ended

PROG = "python -m training.runs"
_SHOWN = ("frechet_distance", "coverage")
_CURVES = ("quality.frechet_distance", "quality.coverage", "loss_D.adversarial", "scores.real")
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40  # of a curve, in characters

Command = Callable[[argparse.Namespace], None]


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    options = _parser(prog).parse_args(argv)
    command: Command = options.command
    try:
        command(options)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="The trainings on disk.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command, description: str) -> argparse.ArgumentParser:
        entry = commands.add_parser(name, help=description, description=description)
        entry.set_defaults(command=command)
        return entry

    of_run = "a run's folder, or its name or number in --runs"
    listing = add("list", _list, "all runs: their data, length, state and figures")
    comparing = add("compare", _compare, "options that differ, figures and curves of some runs")
    comparing.add_argument("run", nargs="+", metavar="RUN", help=of_run)
    for entry in (listing, comparing):
        entry.add_argument("--json", action="store_true", help="print one JSON object")
    exporting = add("export", _export, "publish a checkpoint, the last or an earlier one")
    exporting.add_argument("run", metavar="RUN", help=of_run)
    exporting.add_argument(
        "--checkpoint", default="last", metavar="KIMG", help="last, best, or one by its kimg"
    )
    exporting.add_argument("--name", help="publish under this name (default: the run's)")
    exporting.add_argument("--repository", type=Path, metavar="DIR", help="default: the run's")
    exporting.add_argument(
        "--evaluation", choices=list(PLANS), default="quick", help="default: %(default)s"
    )
    exporting.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write the bundle there and publish nothing"
    )
    deleting = add("delete", _delete, "delete runs with all their checkpoints")
    deleting.add_argument(
        "run",
        nargs="*",
        metavar="RUN",
        help=f"{of_run}; without any, what an interrupted deletion left in --runs",
    )
    deleting.add_argument(
        "--force", action="store_true", help="also a run whose model was not published"
    )
    deleting.add_argument("--dry-run", action="store_true", help="say what would go")
    where = "folder of the runs (default: %(default)s)"
    add_to_all(
        parser, commands, "--runs", type=Path, default=Path("runs"), metavar="DIR", help=where
    )
    return parser


def _list(options: argparse.Namespace) -> None:
    runs = runs_in(options.runs)
    if options.json:
        _print_json({"runs": [_record(run) for run in runs]})
        return
    if not runs:
        print(f"{options.runs} holds no runs")
    else:
        _print_table(_rows(runs))
    if left := leftovers(options.runs):
        print(
            f"half deleted in {options.runs}: {', '.join(path.name for path in left)}; `delete` "
            "without a run removes what is left"
        )


def _rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("RUN", "DATA", "KIMG", "FIGURES", "STATE")]
    for run in runs:
        figures = ", ".join(
            f"{name} {run.figures[name]:.4g}" for name in _SHOWN if name in run.figures
        )
        total = run.options.get("total_kimg", math.nan)
        rows.append(
            (run.folder.name, _data(run), f"{run.cur_kimg:g}/{total:g}", figures, run.outcome)
        )
    return rows


def _compare(options: argparse.Namespace) -> None:
    runs = [find_run(word, options.runs) for word in options.run]
    heads = labels_of(runs)
    if options.json:
        found = [
            _record(run) | {"run": name, "metrics": run.metrics}
            for run, name in zip(runs, heads, strict=True)
        ]
        _print_json({"runs": found})
        return
    names = sorted({name for run in runs for name in run.options})
    differing = [name for name in names if not same_value(runs, name)]
    rows = [(name, *(_told(run.options.get(name)) for run in runs)) for name in differing]
    _print_table([("OPTION", *heads), *rows])
    if not rows:
        print("no option differs")
    print()
    figures = dict.fromkeys(name for run in runs for name in run.figures)
    _print_table(
        [
            ("FIGURE", *heads),
            *((name, *(_number(run.figures.get(name)) for run in runs)) for name in figures),
            ("kimg", *(f"{run.cur_kimg:g}" for run in runs)),
            ("state", *(run.outcome for run in runs)),
        ]
    )
    for name in _CURVES:
        drawn = [
            (head, [line[name] for line in run.metrics if name in line])
            for head, run in zip(heads, runs, strict=True)
        ]
        if any(values for _, values in drawn):
            print(f"\n{name}")
            _print_curves(drawn)


def _print_curves(drawn: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Draws a curve of each run, all on one scale."""
    finite = [value for _, values in drawn for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    width = max(len(head) for head, _ in drawn)
    for head, values in drawn:
        ends = f"{values[0]:.4g} .. {values[-1]:.4g}" if values else "no values"
        print(f"  {head:{width}}  {_curve(values, low, high):{_WIDTH}}  {ends}")


def _curve(values: Sequence[float], low: float, high: float) -> str:
    num = min(len(values), _WIDTH)
    if num > 1:
        values = [values[round(i * (len(values) - 1) / (num - 1))] for i in range(num)]
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((v - low) * scale)] if math.isfinite(v) else "x" for v in values)


def _export(options: argparse.Namespace) -> None:
    # Imported here: the exporter takes seconds that `list` need not wait for.
    from training.runs.ending.earlier import command_to_publish, export_checkpoint
    from training.runs.ending.publication import publish

    run = find_run(options.run, options.runs)
    if options.name is not None:
        try:
            check_name(options.name)
        except RepositoryError as error:
            raise ConfigError(f"name: {error}; set --name") from error
    command = command_to_publish(
        run, name=options.name, repository=options.repository, evaluation=options.evaluation
    )
    bundle, lines = export_checkpoint(
        run,
        command,
        options.checkpoint,
        destination=options.out,
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print("".join(f"{line}\n" for line in lines), end="")
    if options.out is None:
        outcome = publish(command, bundle, say=print)
        if run.has_ended and not run.is_published:  # one that has not can still be resumed
            mark_ended(run.folder, outcome)
    else:
        print(f"Exported into {bundle.path}")


def _delete(options: argparse.Namespace) -> None:
    named = [find_run(word, options.runs) for word in options.run]
    runs = list({run.folder.resolve(): run for run in named}.values())
    for run in runs:  # all of them before the first goes
        if run.is_running:
            raise CheckpointError(f"{run.folder} is being trained; end that first")
        if not run.is_published and not options.force:
            remedy = "publish it with `export`" if run.has_ended else "end it with --resume"
            raise ConfigError(
                f"{run.folder} was not published ({run.outcome}), so nothing else has what it "
                f"learned; {remedy}, or delete it with --force"
            )
    for run in runs:
        if options.dry_run:
            print(f"would delete {run.folder}")
            continue
        _remove(run.folder)
        print(f"deleted {run.folder}")
    left = leftovers(options.runs)
    if not runs and not left:
        print(f"nothing is half deleted in {options.runs}; name a run")
    for path in left:
        if options.dry_run:
            print(f"would delete {path}")
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise UnsavedError(f"{path} can't be deleted: {error}; delete it by hand") from error
        print(f"deleted {path}")


def _remove(run: Path) -> None:
    """Deletes a run's folder, and the link to it where `run` is one.

    Raises:
        UnsavedError: it can't be deleted, or not as a whole.
    """
    folder = run.resolve()
    # Renamed first: a run that is deleted in part would be found and resumed.
    gone = folder.with_name(f"{GONE}{folder.name}")
    try:
        if gone.exists():  # one of this name could not be deleted as a whole
            shutil.rmtree(gone)
        folder.rename(gone)
        if run.is_symlink():
            run.unlink()
        shutil.rmtree(gone)
    except OSError as error:
        where = gone if gone.exists() else folder
        raise UnsavedError(
            f"{run} can't be deleted: {error}; what is left is in {where}, delete it by hand"
        ) from error


def _data(run: Run) -> str:
    path = run.options.get("data.path")
    return str(Path(path).name if path else run.options.get("data.dataset", "?"))


def _record(run: Run) -> dict[str, Any]:
    return {
        "run": run.folder.name,
        "options": run.options,
        "cur_kimg": run.cur_kimg,
        "outcome": run.outcome,
        "checkpoints": run.checkpoints,
        "figures": run.figures,
    }


def _told(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_json(found: dict[str, Any]) -> None:
    print(as_json(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
