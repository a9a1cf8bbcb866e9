import subprocess
import sys

import pytest
import torch

from training import run
from training.errors import MemoryExhaustedError
from training.runs.pipeline import Pipeline


def test_help_and_list_do_not_wait_for_what_only_a_training_needs() -> None:
    """TensorBoard and the exporter's onnx take seconds to import."""
    program = (
        "import sys, training.run; training.run.main(['--list']); "
        "found = {'onnx', 'tensorboard', 'sklearn'} & sys.modules.keys(); "
        "sys.exit(', '.join(sorted(found)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.20 GiB. GPU 0 has a total"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_memory_that_is_too_small_has_an_exit_code_and_advice(error, monkeypatch, capsys):
    def fail(*args):
        raise error

    monkeypatch.setattr(Pipeline, "open", fail)
    assert run.main(["digits"]) == MemoryExhaustedError.exit_code == 14
    said = capsys.readouterr().err
    assert said.startswith("error: not enough memory for a step: ")
    assert "--accumulate 2" in said
    assert "--resume" in said


def test_other_errors_of_a_library_keep_their_traceback(monkeypatch):
    def fail(*args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Pipeline, "open", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run.main(["digits"])
