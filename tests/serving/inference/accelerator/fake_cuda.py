"""ONNX Runtime that says it runs on CUDA, and computes on the CPU: what no GPU is needed for."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from models.bundle.runtime import ort
from serving.inference import sessions
from serving.inference.accelerator import fixed_run, providers
from serving.inference.devices import CPU, CUDA


class FakeCuda:
    """What was asked of it, and what it shall raise."""

    def __init__(self) -> None:
        self.opened: list[dict[str, str]] = []
        """The CUDA provider's options of each session, in order."""
        self.threads: set[str] = set()
        """Names of the threads that touched a session, its last breath included."""
        self.graphs: set[str] = set()
        """Numbers of the graphs that were replayed."""
        self.preloaded: list[bool] = []
        """Whether TensorRT was asked for, of each time that libraries were loaded."""
        self.num_alive = 0
        self.on_open: Callable[[dict[str, str]], None] = lambda options: None
        self.on_model: Callable[[Any], None] = lambda model: None
        """Is given the file or the content of each session on CUDA."""
        self.on_run: Callable[[dict[str, str]], None] = lambda options: None
        self.providers = [CUDA, CPU]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        value = SimpleNamespace(
            ortvalue_from_shape_and_type=lambda shape, dtype, device, index: _DeviceValue(
                ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype)._ortvalue
            )
        )
        fake = SimpleNamespace(
            OrtValue=value,
            RunOptions=ort.RunOptions,
            SessionOptions=ort.SessionOptions,
            InferenceSession=self._open,
        )
        monkeypatch.setattr(
            providers, "preload", lambda *, tensorrt: self.preloaded.append(tensorrt)
        )
        monkeypatch.setattr(sessions, "ort", fake)
        monkeypatch.setattr(fixed_run, "ort", fake)

    def touch(self) -> None:
        self.threads.add(threading.current_thread().name)

    def _open(self, path: Any, options: Any, *, providers: list[Any], **kwargs: Any) -> Any:
        assert kwargs == {"enable_fallback": 0}
        if providers == [CPU]:
            return ort.InferenceSession(path, options, providers=[CPU])
        self.touch()
        assert self.preloaded  # else the provider finds none of its libraries
        ((name, told), _) = providers
        assert name == CUDA
        self.opened.append(told)
        self.on_open(told)
        self.on_model(path)
        return _Session(self, ort.InferenceSession(path, options, providers=[CPU]), told)


class _DeviceValue(ort.OrtValue):  # type: ignore[misc]
    """What lies on a device is copied when it is looked at."""

    def numpy(self) -> Any:
        return super().numpy().copy()


class _Session:
    def __init__(self, fake: FakeCuda, real: Any, told: dict[str, str]) -> None:
        self._fake, self._real, self._told = fake, real, told
        fake.num_alive += 1

    def __del__(self) -> None:
        self._fake.num_alive -= 1
        self._fake.touch()

    def get_providers(self) -> list[str]:
        return self._fake.providers

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def io_binding(self) -> Any:
        return self._real.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._fake.touch()
        self._fake.on_run(self._told)
        if self._told["enable_cuda_graph"] == "1":
            self._fake.graphs.add(options.get_run_config_entry("gpu_graph_id"))
        self._real.run_with_iobinding(binding, options)
