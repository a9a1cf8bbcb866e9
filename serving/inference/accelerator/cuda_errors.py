"""What CUDA's errors mean for a worker: is the device lost, is its memory full, or neither?

ONNX Runtime raises CUDA's errors as plain exceptions whose text holds the number ("CUDA failure
700: an illegal memory access was encountered ; GPU=0 ; hostname=..."). Some are sticky: after one
of them every later call in the process fails as well, so that only a new process can go on (CUDA
Runtime API, cudaError_t: "the process must be terminated and relaunched"). This module knows no
session.
"""

import re

_NUMBER = re.compile(r"\bCUDA[_ ](?:failure|error)[: ]+(\d+)\b", re.IGNORECASE)
# Devices unavailable, uncorrectable ECC and NVLink errors, illegal address, launch time-out,
# destroyed context, assertion to launch failure, unknown.
_STICKY = frozenset({46, 214, 220, 226, 700, 702, 709, *range(710, 720), 999})
_STICKY_WORDS = re.compile(
    r"unspecified launch failure|illegal memory access|illegal instruction was encountered"
    r"|misaligned address|device-side assert|uncorrectable|\bECC error|\bXid\b"
    r"|GPU has fallen off the bus",
    re.IGNORECASE,
)
_OUT_OF_MEMORY = 2
# CUDA's, cuDNN's and cuBLAS's words, and those of ONNX Runtime's arena.
_OUT_OF_MEMORY_WORDS = re.compile(
    r"out of memory|cudaErrorMemoryAllocation|(?:CUDNN|CUBLAS)_STATUS_ALLOC_FAILED"
    r"|Failed to allocate memory for requested buffer|Available memory of \d+ is smaller than",
    re.IGNORECASE,
)
_WANTED = re.compile(
    r"requested buffer of size (\d+)|smaller than requested bytes of (\d+)", re.IGNORECASE
)

_INIT_FAULTS = {
    100: "the driver sees no CUDA device here",
    101: "CUDA_VISIBLE_DEVICES names a device that isn't there",
    802: "the GPU's system isn't ready yet (on NVSwitch machines: is the fabric manager running?)",
    803: "the driver's library and its kernel module are of different versions; restart the node",
    804: "the driver is too old for this CUDA, and the card has no forward compatibility",
    999: "the driver can't be initialised (is /dev/nvidia-uvm there, its module loaded?)",
}


def lost_device(error: BaseException) -> str | None:
    """Why this process can't use its device any more; None where it can."""
    for cause in causes(error):
        text = _text(cause)
        number = _NUMBER.search(text)
        if number is not None and int(number[1]) in _STICKY:
            return number[0]
        words = _STICKY_WORDS.search(text)
        if words is not None:
            return words[0]
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """True where the device's memory was too small, which may pass."""
    for cause in causes(error):
        text = _text(cause)
        number = _NUMBER.search(text)
        if (number is not None and int(number[1]) == _OUT_OF_MEMORY) or (
            _OUT_OF_MEMORY_WORDS.search(text)
        ):
            return True
    return False


def wanted_bytes(error: BaseException) -> int | None:
    """The allocation that failed, where the error says so."""
    for cause in causes(error):
        found = _WANTED.search(_text(cause))
        if found is not None:
            return int(found[1] or found[2])
    return None


def init_fault(code: int) -> str:
    """What cuInit's code means, in words with a remedy where there is one."""
    return f"{_INIT_FAULTS.get(code, 'the driver can not be initialised')} (cuInit gave {code})"


def causes(error: BaseException) -> list[BaseException]:
    """An error and what it was raised from; not what was merely being handled."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__
    return found


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # foreign code; its kind says nothing here
        return ""
