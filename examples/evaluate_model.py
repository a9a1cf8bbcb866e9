"""Measures a published model and says where it stands between noise and real images.

    make train
    .venv/bin/python examples/evaluate_model.py digits

Prints a line a figure: 100 % is what real images reach, 0 % what noise reaches. Every option after
the name goes to the evaluation: `saddlepoint evaluate --help` lists them. The full table, with
intervals and how each figure was measured: `saddlepoint evaluate digits`.
"""

import argparse
import contextlib
import io
import json
from typing import Any

from training.evaluate import main as evaluate

FIGURES = ("frechet_distance", "precision", "recall", "coverage")


def standing(metric: dict[str, Any]) -> float:
    """Where a figure lies between noise (0) and real images (1)."""
    real, noise = metric["protocol"]["floor"], metric["protocol"]["ceiling"]
    return (metric["value"] - noise) / (real - noise)


def main(argv: list[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("model", help="NAME or NAME@VERSION in the repository")
    options, more = parser.parse_known_args(argv)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exit_code = evaluate([options.model, "--json", "--measures", *FIGURES, *more])
    if exit_code:
        return exit_code
    report = json.loads(printed.getvalue())
    print(f"{report['name']} version {report['version']}")
    for metric in report["metrics"]:
        print(f"  {metric['name']:16} {metric['value']:8.4g}  {standing(metric):6.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
