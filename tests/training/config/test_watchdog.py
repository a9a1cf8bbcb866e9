import pytest

from training.config.watchdog import FAILURES, WatchdogConfig
from training.errors import ConfigError
from training.watchdog.detectors import DETECTORS


def test_the_failures_are_those_that_detectors_look_for() -> None:
    """The configuration can't import the detectors, so that it has their names a second time."""
    assert tuple(DETECTORS) == FAILURES
    for failure in DETECTORS:
        assert WatchdogConfig(ignore=(failure,)).ignore == (failure,)


def test_an_unknown_failure_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"watchdog\.ignore is 'boredom', allowed: divergence"):
        WatchdogConfig(ignore=("boredom",))
