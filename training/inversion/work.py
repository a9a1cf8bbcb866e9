"""An encoder's training on disk: its folder, checkpoint and progress, and going on after a stop."""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.bundle import sync_folder, write_synced
from training.errors import CheckpointError, NonFinite, NonFiniteError
from training.finite_json import as_json
from training.inversion.fit import EncoderFit
from training.runs.interruption import InterruptedRun, Interruption

CHECKPOINT, METRICS = "encoder.pt", "metrics.jsonl"
_SAVE_S, _SAY_S = 30.0, 2.0


@dataclass(frozen=True)
class Work:
    """The folder of one encoder's training."""

    folder: Path
    model: str
    """SHA-256 of the model.onnx that it belongs to."""
    say: Callable[[str], None]
    images: str = ""
    """SHA-256 of the real images that it learns from; empty for none."""

    def train(self, fit: EncoderFit, *, resume: bool) -> None:
        """Trains to the end, saving every half minute; a signal saves and stops.

        Raises:
            CheckpointError: the folder holds another training, or one and `resume` is False.
            NonFiniteError: the loss is not finite.
            InterruptedRun: a signal came; the state is saved.
        """
        self._enter(fit, resume=resume)
        total, interruption = fit.config.num_steps, Interruption()
        began, first = time.monotonic(), fit.step
        said = saved = began
        with interruption.handled(), interruption.deferred():
            while fit.step < total and not interruption.is_seen:
                fit.advance()
                now = time.monotonic()
                if now - said >= _SAY_S or fit.step == total:
                    said = now
                    self._tell(fit, (now - began) / (fit.step - first))
                if now - saved >= _SAVE_S:
                    saved = now
                    self._save(fit)
            self._save(fit)
        if fit.step < total:
            self.say(f"stopped at step {fit.step} of {total}; the same command goes on: --resume")
            raise InterruptedRun
        spent = time.monotonic() - began
        self.say(f"Trained the encoder: {fit.step - first} of {total} steps in {spent:.0f} s")

    def _enter(self, fit: EncoderFit, *, resume: bool) -> None:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        if not resume:
            raise CheckpointError(
                f"folder is {str(self.folder)!r}, which holds an encoder's training; go on with "
                "--resume, or choose another --folder"
            )
        try:
            state = torch.load(path, weights_only=True)
            same = (state["model"], state["config"]) == (self.model, fit.state()["config"])
            # Earlier releases didn't write down which images they had.
            alike = state.get("images", self.images) == self.images
            if same and alike:
                fit.restore(state)
        except Exception as error:  # torch's and zip's errors share no base
            raise CheckpointError(
                f"{path} is damaged, or no encoder's training ({type(error).__name__}); choose "
                "another --folder, or delete this one"
            ) from error
        if not same:
            raise CheckpointError(
                f"{path} is of another model, or has other options: {_shown(state['config'])}; "
                "choose another --folder, or give these options"
            )
        if not alike:
            raise CheckpointError(
                f"the images are not those that {path} began with: some were changed, added, "
                "removed or renamed; restore them, or choose another --folder for a new training"
            )
        self.say(f"goes on at step {fit.step} of {fit.config.num_steps}")

    def _save(self, fit: EncoderFit) -> None:
        """Writes the checkpoint under a temporary name and renames it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save({**fit.state(), "model": self.model, "images": self.images}, buffer)
        partial = self.folder / f".{CHECKPOINT}"
        write_synced(partial, buffer.getvalue())
        partial.replace(self.folder / CHECKPOINT)
        sync_folder(self.folder)

    def _tell(self, fit: EncoderFit, step_s: float) -> None:
        total, kimg = fit.config.num_steps, fit.config.kimg
        if bad := [name for name, value in fit.loss.items() if not math.isfinite(value)]:
            raise NonFiniteError(
                NonFinite(terms=tuple(bad), cur_nimg=fit.step),
                f"the encoder's {', '.join(bad)} is not finite at step {fit.step}; set a smaller "
                "--lr and another --folder",
            )
        done = fit.step / total * kimg
        left = (total - fit.step) * step_s
        pixels = fit.loss.get("pixels")
        error = "" if pixels is None else f"  {decibel(pixels):.1f} dB"
        self.say(f"kimg {done:.1f}/{kimg:g}{error}  left {left // 60:.0f}m{left % 60:02.0f}s")
        record: dict[str, Any] = {"step": fit.step, "kimg": done, **fit.loss}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(as_json(record, indent=None) + "\n")


def decibel(error: float) -> float:
    """PSNR in dB of a mean squared error of values in [-1, 1]; 99 for no error."""
    return min(99.0, 10 * math.log10(4 / max(error, 1e-12)))


def _shown(config: dict[str, Any]) -> str:
    flat = {**config, **config.get("network", {})}
    return ", ".join(f"{name} {value}" for name, value in flat.items() if name != "network")
