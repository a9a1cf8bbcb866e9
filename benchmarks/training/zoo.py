"""Every recipe at one budget on digits: quality and stability, side by side.

A cell is a recipe, a data set and a seed. Each is trained by `training.engine.stepper.Stepper`, as
`python -m training.run` does it, and looked at three times, from half of the budget on. Cells are
files under --out and are made once: the benchmark can be stopped and goes on where it was. All
cells of a data set show D the same number of images, so a recipe with five steps of D for one of G
has a fifth of G's steps.

    digits   scikit-learn's digits at 32x32, the recipe's networks; Frechet distance and coverage on
             features of a classifier trained on them, against held-out digits (the floor: digits
             against digits); classes by an SVM
swing is how much worse than its best the average generator gets in the second half: the highest
over the lowest Frechet distance. `benchmarks/training/modes.py` counts modes of mixtures.

Run: python benchmarks/training/zoo.py [--quick] [--write docs/zoo.md]
"""

import argparse
import functools
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from _digits_eye import FIGURES, DigitsEye
from _log import key_of
from _pool import run_all
from _tables import at_least_one, check_page
from _tables import fill as fill_page
from _zoo_cells import DATASETS, MARKS, NOT_METHODS, Cell, cells, made
from _zoo_page import report

from training.data import Batches
from training.engine.state import State
from training.engine.stepper import Stepper
from training.recipes import RECIPES

LOOKS = (4, 6, 8)  # of MARKS: looking costs as much as training
CPU = torch.device("cpu")


def run(cell: Cell, out: Path) -> dict[str, Any]:
    """Trains a cell, looks at it, and writes its file."""
    torch.set_num_threads(1)
    config = cell.config()
    eye = DigitsEye(config, out / "cache")
    state = State.fresh(config, eye.images.shape, CPU)
    batches = Batches(eye.images, batch_size=config.batch_size, seed=config.seed)
    stepper = Stepper(config, state, batches)
    start, trace, failed = time.process_time(), [], None
    for mark in range(1, MARKS + 1):
        while state.cur_nimg < config.total_nimg * mark / MARKS and failed is None:
            stepper.step()
            non_finite = stepper.non_finite()
            failed = None if non_finite is None else f"{', '.join(non_finite.terms)} not finite"
        if failed:
            break
        means = stepper.meters.means()
        stepper.meters.reset()
        spent = time.process_time() - start
        figures = eye.look(state.G_ema) if mark in LOOKS else {}
        trace.append({"kimg": state.cur_nimg / 1000, **means, **figures})
        start += time.process_time() - start - spent  # looking is not counted
    eye.picture(state.G_ema, out / f"{cell.name}.png")
    result = {
        "cell": asdict(cell),
        "trace": trace,
        "failed": failed,
        "cpu_s": time.process_time() - start,
    }
    partial = out / f".{cell.name}.partial"
    partial.write_text(json.dumps(result, indent=1))
    partial.rename(out / f"{cell.name}.json")
    return result


def fill(wanted: list[Cell], out: Path, workers: int) -> None:
    """Makes what is missing, saying how far it is."""
    missing = [cell for cell in wanted if made(cell, out) is None]
    print(f"{len(wanted)} cells, {len(missing)} to make, {workers} at a time", flush=True)
    start = time.monotonic()
    named = {key_of(asdict(cell)): cell.name for cell in missing}
    results = run_all(functools.partial(run, out=out), missing, workers)
    for num, result in enumerate(results, 1):
        left = (time.monotonic() - start) / num * (len(missing) - num)
        last = result["trace"][-1] if result["trace"] else {}
        figures = " ".join(f"{name} {last[name]:.3g}" for name in FIGURES if name in last)
        print(
            f"{num}/{len(missing)} {named[key_of(result['cell'])]}: "
            f"{result['failed'] or figures}, {result['cpu_s']:.0f} s; "
            f"left about {left / 60:.0f} min",
            flush=True,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    recipes = [name for name in RECIPES if name not in NOT_METHODS]
    parser.add_argument("--quick", action="store_true", help="one seed, a twentieth of the budget")
    parser.add_argument("--recipes", nargs="*", choices=recipes, default=recipes)
    parser.add_argument("--datasets", nargs="*", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--seeds", type=at_least_one, default=3)
    parser.add_argument(
        "--workers", type=at_least_one, default=2, help="trainings at a time, a core each"
    )
    parser.add_argument("--out", type=Path, default=Path(".benchmarks/zoo"), help="cells and cache")
    parser.add_argument("--as-is", action="store_true", help="make no cell, report those there are")
    parser.add_argument("--write", type=Path, help="page whose tables are written")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.write:
        check_page(given.write)
    out = given.out / "quick" if given.quick else given.out
    out.mkdir(parents=True, exist_ok=True)
    num_seeds = 1 if given.quick else given.seeds
    wanted = list(cells(given.datasets, given.recipes, num_seeds, quick=given.quick))
    start = time.monotonic()
    if not given.as_is:
        fill(wanted, out, given.workers)
    page = given.write or out / "zoo.md"
    tables = report(wanted, out, page.with_suffix(""))
    if given.write:
        fill_page(page, tables)
    else:
        page.write_text("\n".join(tables.values()))
    num = sum(1 for cell in wanted if made(cell, out) is not None)
    print(f"figure zoo_cells {num} trainings")
    print(f"figure zoo_time {(time.monotonic() - start) / 60:.1f} min")
    print(f"written: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
