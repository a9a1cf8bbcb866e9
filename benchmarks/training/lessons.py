"""What the lab's lessons show, in figures: each pair of games over several seeds.

    python benchmarks/training/lessons.py [--quick] [--rounds N] [--seeds N] [--write docs/lab.md]

A game is looked at every 50 rounds of its second half. Figures are means over these looks and over
the seeds: modes and share of good points of the last G and of the averaged one (2,500 points), the
size of the game's gradient |v|, and how far the last G's share swings (standard deviation over the
looks, mean over the seeds). Rounds a second are of this process alone.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _rounds import figure, parser
from _tables import fill

from training.lab.game import Game
from training.lab.lessons import LESSONS
from training.lab.parameters import from_query
from training.randomness import key, normal

EVERY = 50
NUM_POINTS = 2500
UNITS = {
    "modes": "modes",
    "good": "of 1",
    "modes_average": "modes",
    "good_average": "of 1",
    "v": "a round",
    "swing": "of 1",
    "rate": "rounds/s",
}


@dataclass(frozen=True)
class Look:
    """A game at a round."""

    modes: float
    good: float
    modes_average: float
    good_average: float
    v: float


def looks(game: Game, rounds: int) -> Iterator[Look]:
    """Plays, and looks at the second half."""
    z = normal((NUM_POINTS, game.parameters.z_dim), torch.Generator(), key(0, "lessons", 0))
    for number in range(1, rounds + 1):
        if number % EVERY == 1:
            game.stepper.meters.reset()
        game.step()
        if game.failure is not None:
            return
        if number <= rounds // 2 or number % EVERY:
            continue
        means = game.stepper.meters.means()
        with torch.no_grad():
            last, average = (
                game.cloud.coverage(network(z).flatten(1).numpy())
                for network in (game.state.G.network, game.state.G_ema)
            )
        v = math.hypot(means["gradient_D"], means["gradient_G"])
        yield Look(last.caught, last.good_share, average.caught, average.good_share, v)


def played(query: dict[str, str], rounds: int, seeds: int) -> dict[str, float] | None:
    """Means over the seeds; None where a game was not finite at its end."""
    found = []
    for seed in range(seeds):
        game = Game(from_query({**query, "seed": str(seed)}))
        start = time.process_time()
        seen = list(looks(game, rounds))
        if len(seen) < rounds // 2 // EVERY:
            return None
        rate = rounds / (time.process_time() - start)
        values = {
            name: float(np.mean([getattr(look, name) for look in seen])) for name in [*UNITS][:5]
        }
        swing = float(np.std([look.good for look in seen]))
        found.append({**values, "swing": swing, "rate": rate})
    return {name: float(np.mean([each[name] for each in found])) for name in UNITS}


def row(title: str, found: dict[str, float] | None) -> str:
    if found is None:
        return f"| {title} | not finite | | | | | | |"
    cells = (
        f"{found['modes']:.1f}",
        f"{100 * found['good']:.0f} %",
        f"{100 * found['swing']:.0f} %",
        f"{found['modes_average']:.1f}",
        f"{100 * found['good_average']:.0f} %",
        f"{found['v']:.2g}",
        f"{found['rate']:.0f}",
    )
    return f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3000)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--only", default="", help="lessons whose name holds this")
    options.add_argument("--write", type=Path, help="the page whose table is made anew")
    asked = options.parse_args()
    torch.set_num_threads(1)
    rounds, seeds = (200, 1) if asked.quick else (asked.rounds, asked.seeds)
    lines = [
        f"Rounds {rounds // 2:,} to {rounds:,} of {seeds} seeds each.",
        "",
        "| lesson | modes | good | its swing | modes, averaged G | good, averaged G | \\|v\\| "
        "| rounds/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for lesson in LESSONS:
        if asked.only not in lesson.name:
            continue
        sides = {"A": lesson.a} | ({"B": {**lesson.a, **lesson.b}} if lesson.b else {})
        for side, query in sides.items():
            found = played(query, rounds, seeds)
            for name, value in (found or {}).items():
                figure(f"lessons.{lesson.name}.{side}.{name}", value, UNITS[name])
            title = f"{lesson.title}: {side}" if lesson.b else lesson.title
            lines.append(row(title, found))
            print(lines[-1], flush=True)
    if asked.write:
        fill(asked.write, {"lessons": "\n".join(lines)})


if __name__ == "__main__":
    main()
