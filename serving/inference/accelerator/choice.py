"""Chooses the devices of a server's workers: a process for each GPU, which sees no other.

A GPU has worked before it is chosen: in a child process, one convolution was computed there
(`serving.inference.accelerator.probe`). A GPU that fails costs none of the others.
"""

import ctypes
import logging
import os
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from models.bundle.runtime import ort
from serving.errors import DeviceError
from serving.inference.accelerator import probe
from serving.inference.accelerator.probe import ProbeError
from serving.inference.devices import CUDA

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_MAX_PROBES = 8  # at once: each loads CUDA's libraries


@dataclass(frozen=True)
class Devices:
    """Where the workers run."""

    kind: str
    """"cpu" or "cuda"."""
    visible: tuple[str, ...] = ()
    """CUDA: what CUDA_VISIBLE_DEVICES is set to, for one worker each."""

    @property
    def num(self) -> int:
        """How many there are; the CPU is one."""
        return len(self.visible) or 1


def choose_devices(asked: str, names: tuple[str, ...] = ()) -> Devices:
    """Chooses the devices that the workers run on.

    Args:
        asked: "auto", "cpu" or "cuda".
        names: the only GPUs to use, as CUDA_VISIBLE_DEVICES takes them; empty for all.

    Raises:
        DeviceError: CUDA was asked for, by `asked` or by `names`, and can't be used; the text says
            what is missing.
    """
    if asked == "cpu":
        return Devices("cpu")
    try:
        return Devices("cuda", _working(names))
    except ProbeError as error:
        if names:
            raise DeviceError(f"--devices is {','.join(names)}, but {error}") from error
        if asked == "cuda":
            raise DeviceError(
                f"--device is cuda, but {error}; use --device cpu, or auto to take what there is"
            ) from error
        # Where there is no driver, nobody expects a GPU.
        level = logging.INFO if isinstance(error, _NoDriverError) else logging.WARNING
        logger.log(level, "models run on the CPU: %s", error)
    return Devices("cpu")


def claim(name: str, environ: MutableMapping[str, str] = os.environ) -> str:
    """Makes one GPU the only one of this process; returns what the process calls it.

    Before anything of CUDA is loaded. Else each process has a context on the first GPU too, of
    some hundred MB.
    """
    environ[VISIBLE] = name
    environ.setdefault(ORDER, "PCI_BUS_ID")
    return "cuda:0"


def take(device: str) -> str:
    """As `claim` for "cuda:NAME"; "cpu" stays what it is."""
    return device if device == "cpu" else claim(device.partition(":")[2])


def visible_name(index: int) -> str:
    """What CUDA_VISIBLE_DEVICES calls the GPU that this process sees as number `index`."""
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return names[index] if index < len(names) else str(index)


class _NoDriverError(ProbeError):
    """There is no NVIDIA driver here."""


def _working(names: tuple[str, ...]) -> tuple[str, ...]:
    """The GPUs that computed something.

    Raises:
        ProbeError: there is none, or one of `names` doesn't work.
    """
    if CUDA not in ort.get_available_providers():
        raise _NoDriverError("this onnxruntime is built without CUDA (install onnxruntime-gpu)")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise _NoDriverError(f"the NVIDIA driver can't be loaded ({error})") from error
    found = names or _all()
    with ThreadPoolExecutor(_MAX_PROBES) as pool:
        faults = dict(zip(found, pool.map(_fault_of, found), strict=True))
    works = tuple(name for name, fault in faults.items() if fault is None)
    if names and len(works) < len(names):
        text = "; ".join(f"{name}: {fault}" for name, fault in faults.items() if fault)
        raise ProbeError(f"not all of them work: {text}; leave those out")
    if not works:
        raise ProbeError(next(iter(faults.values())) or "there is no CUDA device here")
    for name, fault in faults.items():
        if fault is not None:
            logger.error("GPU %s is left out: %s", name, fault)
    return works


def _all() -> tuple[str, ...]:
    order = {ORDER: os.environ.get(ORDER, "PCI_BUS_ID")}
    num = int(probe.ask("count", order)["count"])
    return tuple(visible_name(index) for index in range(num))


def _fault_of(name: str) -> str | None:
    variables: dict[str, str] = {}
    claim(name, variables)
    variables[ORDER] = os.environ.get(ORDER, variables[ORDER])
    try:
        probe.ask("session", variables)
    except ProbeError as error:
        return str(error)
    return None
