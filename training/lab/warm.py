"""What a game's process needs, imported once: games are forked from a process that has it all.

The process that imports this plays nothing, so that it has one thread and may be forked.
"""

from training.lab import spectrometer, worker
from training.lab.game import Game
from training.lab.parameters import Parameters

__all__ = ["spectrometer", "worker"]

Game(Parameters())  # torch imports more when the first optimiser is made: seconds
