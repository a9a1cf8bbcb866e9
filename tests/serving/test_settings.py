"""Settings from flags and environment, and the refusals."""

from pathlib import Path

import pytest

from serving.errors import SettingsError
from serving.settings import Settings, parse


def test_defaults_hold_without_flags() -> None:
    assert parse([], {}) == Settings()


def test_a_flag_beats_the_environment_which_beats_the_default() -> None:
    environ = {"SADDLEPOINT_PORT": "9001", "SADDLEPOINT_DEVICE": "cpu", "HOME": "/"}
    settings = parse(["--port", "9002"], environ)
    assert (settings.port, settings.device) == (9002, "cpu")


def test_values_take_their_types() -> None:
    settings = parse(["--repository", "x/y", "--models", "a, b,", "--reload-interval-s", "0.5"], {})
    assert settings.repository == Path("x/y")
    assert settings.models == ("a", "b")
    assert settings.reload_interval_s == 0.5
    assert parse(["--buckets", "1,8,64"], {}).buckets == (1, 8, 64)
    assert parse([], {"SADDLEPOINT_ACCESS_LOG": "true"}).access_log is True
    assert parse(["--access-log", "false"], {}).access_log is False
    assert parse(["--api-keys", ""], {"SADDLEPOINT_API_KEYS": "x"}).api_keys is None
    assert parse(["--tensorrt-cache", "engines"], {}).tensorrt_cache == Path("engines")
    assert parse([], {"SADDLEPOINT_TENSORRT_CACHE": ""}).tensorrt_cache is None


def test_what_has_no_effect_on_the_device_is_refused() -> None:
    Settings().check_device("cpu")
    Settings(compute_lanes=2).check_device("cpu")
    with pytest.raises(SettingsError, match="--tensorrt-cache is x, but the models run on cpu"):
        Settings(tensorrt_cache=Path("x")).check_device("cpu")
    with pytest.raises(SettingsError, match="--compute-lanes is 2, but the models run on cuda"):
        Settings(compute_lanes=2).check_device("cuda")


@pytest.mark.parametrize(
    ("argv", "environ", "words"),
    [
        (["--port", "80"], {}, "--port is 80, must be at least 1024"),
        (["--port", "70000"], {}, "allowed are 1024 .. 65535"),
        (["--port", "x"], {}, "--port is 'x', must be a whole number"),
        ([], {"SADDLEPOINT_PORT": "x"}, "SADDLEPOINT_PORT is 'x'"),
        ([], {"SADDLEPOINT_PROT": "1"}, "SADDLEPOINT_PROT is not a setting"),
        (["--device", "tpu"], {}, "--device is 'tpu', allowed are auto, cpu, cuda"),
        (["--host", "example.org"], {}, "--host"),
        (["--max-batch-rows", "0"], {}, "must be at least 1"),
        (["--max-waiting-rows", "5"], {}, "must be at least 1024, --max-seeds for each"),
        (["--models", "../x"], {}, "--models: model name '../x' is not allowed"),
        (["--buckets", "8,4", "--max-batch-rows", "4"], {}, "--buckets is 8,4, must be rising"),
        (["--buckets", "0,64"], {}, "must be rising, from 1 on"),
        (["--buckets", "1,8"], {}, "its last must be --max-batch-rows, which is 64"),
        (["--buckets", "1,x"], {}, "--buckets is '1,x', must be whole numbers"),
        (["--log-level", "loud"], {}, "--log-level is 'loud'"),
        (["--log-format", "xml"], {}, "--log-format is 'xml', allowed are text, json"),
        (["--access-log", "yes"], {}, "--access-log is 'yes', must be true or false"),
        (["--read-timeout-s", "0"], {}, "--read-timeout-s is 0.0, must be at least 0.1"),
        (["--read-timeout-s", "nan"], {}, "--read-timeout-s is 'nan', must be a number"),
        (["--metrics-port", "80"], {}, "--metrics-port is 80, allowed are 0 and 1024 .. 65535"),
        (["--metrics-port", "8000"], {}, "--metrics-port is 8000, as --port is; 0 shares it"),
        (["--cuda-math", "fp8"], {}, "--cuda-math is 'fp8', allowed are fp32, tf32"),
        (["--cuda-graphs", "on"], {}, "--cuda-graphs is 'on', allowed are auto, off"),
    ],
)
def test_a_wrong_setting_is_named(argv: list[str], environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(argv, environ)
    assert words in str(refused.value)
