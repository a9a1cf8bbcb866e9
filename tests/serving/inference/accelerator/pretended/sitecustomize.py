"""Gives a server GPUs that aren't there: on PYTHONPATH it is imported at the start of each process.

ONNX Runtime then says that it is on CUDA, and computes on the CPU. Each session of CUDA leaves a
line in $PRETENDED/sessions: the process, the GPUs that it sees, the thread, TF32's override. While
there is a file $PRETENDED/lost, the next run removes it and fails as on a device that is lost. As
with wheels, CUDA doesn't start in a process that hasn't loaded its libraries.
"""

import os
import threading
from pathlib import Path
from typing import Any

if FOLDER := os.environ.get("PRETENDED"):
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

    import onnxruntime as ort

    make_session, make_value = ort.InferenceSession, ort.OrtValue.ortvalue_from_shape_and_type
    CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
    LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=node-7"

    def removed(path: Path) -> bool:
        """True in the one process that removes the file: another may look at the same moment."""
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    class Session(make_session):  # type: ignore[misc, valid-type]
        """A session that says it is on CUDA where that was asked for."""

        def __init__(self, path: Any, options: Any = None, providers: Any = (), **kw: Any) -> None:
            names = [each if isinstance(each, str) else each[0] for each in providers]
            self.pretends = CUDA in names
            super().__init__(path, options, providers=[CPU], **kw)
            if self.pretends:
                told = [os.environ.get(n) for n in ("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")]
                thread = threading.current_thread().name
                with (Path(FOLDER) / "sessions").open("a") as file:
                    file.write(f"{os.getpid()} {told[0]} {thread} {told[1]}\n")

        def get_providers(self) -> list[str]:
            return [CUDA, CPU] if self.pretends and loaded else [CPU]

        def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
            if self.pretends and removed(Path(FOLDER) / "lost"):
                raise RuntimeError(LOST)
            super().run_with_iobinding(binding, options)

    class Value(ort.OrtValue):  # type: ignore[misc]
        """What lies on the device: a copy of it is looked at."""

        @classmethod
        def ortvalue_from_shape_and_type(cls, shape: Any, dtype: Any, *where: Any) -> Any:
            return cls(make_value(shape, dtype)._ortvalue)

        def numpy(self) -> Any:
            return super().numpy().copy()

    loaded: list[bool] = []
    ort.preload_dlls = lambda: loaded.append(True)
    ort.InferenceSession, ort.OrtValue = Session, Value
    ort.get_available_providers = lambda: [CUDA, CPU]
