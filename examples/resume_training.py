"""Trains on the embedded digits, stops, and goes on from where it stopped.

    .venv/bin/python examples/resume_training.py

Trains for 4,000 images, then resumes the same run up to 8,000 with half the learning rate. Prints
the options that changed and G's loss before and after. A training that was killed is resumed in the
same way: `saddlepoint train --resume runs/00000-digits`.
"""

import argparse
import json
from pathlib import Path

from training.run import main as train


def main(argv: list[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--kimg", type=float, default=4.0, help="thousands of images, each time")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    options, training = parser.parse_known_args(argv)

    first = ["--runs", str(options.runs), "--total-kimg", str(options.kimg)]
    first += ["--tick-kimg", str(options.kimg / 2), "--evaluation", "none"]
    exit_code = train(["digits", *first, *training])
    if exit_code:
        return exit_code

    run = sorted(options.runs.glob("*-digits"))[-1]
    # The run's own config.json gives every option that isn't named here.
    more = ["--total-kimg", str(2 * options.kimg), "--optim-G.lr", "5e-4", "--optim-D.lr", "5e-4"]
    exit_code = train(["--resume", str(run), *more])
    if exit_code:
        return exit_code

    for line in (run / "metrics.jsonl").read_text().splitlines():
        tick = json.loads(line)
        print(f"{tick['cur_nimg']:6} images  loss G {tick['loss_G.adversarial']:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
