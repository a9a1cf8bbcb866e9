"""Settings from flags and environment, and the refusals."""

from pathlib import Path

import pytest

from serving.command_line import of_kubernetes, parse
from serving.errors import SettingsError
from serving.settings import Settings


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


def test_the_number_of_http_processes_may_be_left_to_the_server() -> None:
    settings = parse(["--api-processes", "auto"], {})
    assert [settings.chosen("cpu", cpus).api_processes for cpus in (1, 2, 16)] == [1, 2, 2]
    assert [settings.chosen("cuda", cpus).api_processes for cpus in (1, 3, 16)] == [1, 3, 4]
    assert parse([], {}).api_processes == settings.api_processes  # the default
    assert parse(["--api-processes", "3"], {}).chosen("cpu", 16).api_processes == 3
    with pytest.raises(SettingsError, match="must be a whole number or auto"):
        parse(["--api-processes", "many"], {})


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
        (["--port", "-1"], {}, "--port is -1, must be at least 0"),
        (["--port", "70000"], {}, "allowed are 0 .. 65535"),
        (["--port", "x"], {}, "--port is 'x', must be a whole number"),
        ([], {"SADDLEPOINT_PORT": "x"}, "SADDLEPOINT_PORT is 'x'"),
        ([], {"SADDLEPOINT_PROT": "1"}, "SADDLEPOINT_PROT is not a setting"),
        (["--device", "tpu"], {}, "--device is 'tpu', allowed are auto, cpu, cuda"),
        (["--host", " "], {}, "--host is empty"),
        (["--root-path", "images"], {}, "--root-path is 'images', allowed are segments"),
        (["--root-path", "/images/"], {}, "without a slash at the end"),
        (["--root-path", "/v1/x"], {}, "paths of the server itself begin so"),
        (["--root-path", "/health"], {}, "paths of the server itself begin so"),
        (["--unix-socket", "s", "--port", "9"], {}, "give one of them"),
        (["--max-batch-rows", "0"], {}, "must be at least 1"),
        (["--max-waiting-rows", "5"], {}, "must be at least 1024, as --max-seeds is"),
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
        (["--metrics-port", "99999"], {}, "--metrics-port is 99999, allowed are 0 .. 65535"),
        (["--metrics-port", "8000"], {}, "--metrics-port is 8000, as --port is; 0 shares it"),
        (["--cuda-math", "fp8"], {}, "--cuda-math is 'fp8', allowed are fp32, tf32, fp16"),
        (["--cuda-graphs", "on"], {}, "--cuda-graphs is 'on', allowed are auto, off"),
        *(
            (["--webhook-hosts", host], {}, f"--webhook-hosts has {host!r}, allowed are host names")
            for host in (
                *("https://example.org", "*", "*.example.org", "a b", "example.org/x", "a@b"),
                *("::1", "[::1", "[example.org]", "[::1]x", "h:", "h:0", "h:70000", "h:x", "h:1:2"),
                *("_h", "h.", "a..b", "\N{LATIN SMALL LETTER E WITH ACUTE}.org", "[::g]"),
            )
        ),
    ],
)
def test_a_wrong_setting_is_named(argv: list[str], environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(argv, environ)
    assert words in str(refused.value)


def test_variables_of_kubernetes_are_no_settings() -> None:
    """As a Service `saddlepoint` of two ports, and one `saddlepoint-metrics`, bring them."""
    of_services = {
        "SADDLEPOINT_SERVICE_HOST": "10.96.0.7",
        "SADDLEPOINT_SERVICE_PORT": "80",
        "SADDLEPOINT_SERVICE_PORT_HTTP": "80",
        "SADDLEPOINT_PORT": "tcp://10.96.0.7:80",
        "SADDLEPOINT_PORT_80_TCP": "tcp://10.96.0.7:80",
        "SADDLEPOINT_PORT_80_TCP_PROTO": "tcp",
        "SADDLEPOINT_PORT_80_TCP_PORT": "80",
        "SADDLEPOINT_PORT_80_TCP_ADDR": "10.96.0.7",
        "SADDLEPOINT_METRICS_SERVICE_HOST": "10.96.0.8",
        "SADDLEPOINT_METRICS_PORT": "udp://[fd00::8]:9090",
    }
    environ = of_services | {"SADDLEPOINT_MAX_SEEDS": "7", "HOME": "/"}
    assert parse([], environ) == Settings(max_seeds=7)
    assert of_kubernetes(environ) == sorted(of_services)
    with pytest.raises(SettingsError, match="SADDLEPOINT_PORT is 'tcp:'"):
        parse([], {"SADDLEPOINT_PORT": "tcp:"})
