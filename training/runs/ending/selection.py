"""Which weights of a run are exported: the last ones, or those of the best look (--select)."""

import shlex
from collections.abc import Callable
from pathlib import Path

from training.cli.command import Command
from training.engine.checkpoint import Checkpoints, cur_nimg_of, load_average, read
from training.engine.state import State
from training.runs.keeping import LAST
from training.runs.quality import best_look, much_better

Say = Callable[[str], None]


def select_weights(
    command: Command,
    state: State,
    folder: Path,
    checkpoints: Checkpoints,
    figure: str,
    floor: dict[str, float],
    *,
    say: Say,
) -> tuple[int, list[str]]:
    """Puts the weights that --select chooses into G_ema, and tells about them.

    Args:
        command: of the run.
        state: as it is at the end of the training.
        folder: the run's, for the words.
        checkpoints: those that are there to choose from.
        figure: by which the best look is chosen.
        floor: the looks' figures of real images.
        say: gets lines for the user.

    Returns:
        Images shown before these weights were saved, and a line for the manifest where they aren't
        the last ones.
    """
    select, looks = command.options.select, state.looks
    # One that could not be saved, or was deleted, can't be exported.
    there = {state.cur_nimg, *map(cur_nimg_of, checkpoints.paths())}
    if select == LAST:
        if line := much_better(looks, floor, among=there):
            say(f"{line}; --resume {shlex.quote(str(folder))} --select best exports those")
        return state.cur_nimg, []
    best, first = best_look(looks, figure, among=there), best_look(looks, figure)
    if first is not None and first is not best:
        say(
            f"warning: the best look, {figure} {first[figure]:.4g}, was at "
            f"{first['cur_nimg'] / 1000:.3f} kimg, whose checkpoint is not there"
        )
    if best is None:
        what = "nobody looked at the images" if first is None else "no other look is left"
        say(f"warning: {what}, so select={select} is last")
        return state.cur_nimg, []
    value, cur_nimg = best[figure], round(best["cur_nimg"])
    line = f"{figure} {value:.4g} at {cur_nimg / 1000:.3f} kimg, the best of {len(looks)} looks"
    say(f"select={select}: {line}")
    if cur_nimg == state.cur_nimg:
        return cur_nimg, []
    load_average(read(checkpoints.at(cur_nimg)), state, command.config)
    return cur_nimg, [line]
