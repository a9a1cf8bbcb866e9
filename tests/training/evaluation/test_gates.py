"""Gates: what they let through, what they hold back, and what they say."""

import math

import msgspec
import pytest

from models.bundle.manifest import Metric
from models.repository import Repository
from training.errors import ConfigError, GateError
from training.evaluation.gates import (
    Gate,
    check_comparable,
    check_gates,
    check_measured,
    current_of,
    figures_against_current,
    parse_gates,
)

PROTOCOL = {"n": 500, "features": "random", "interval": [0.7, 0.9], "floor": 0.9, "ceiling": 0.0}


def metric(name="coverage", value=0.8, **protocol):
    return Metric(name=name, value=value, protocol=PROTOCOL | protocol)


def manifest(make_bundle, *metrics):
    return msgspec.structs.replace(make_bundle().manifest, metrics=metrics)


@pytest.mark.parametrize(
    ("text", "value", "passes"),
    [
        ("coverage>=0.8", 0.8, True),
        ("coverage>=0.8", 0.79, False),
        ("coverage > 0.8", 0.8, False),
        ("frechet_distance<=5", 5.0, True),
        ("frechet_distance<5", 5.0, False),
        ("kernel_distance<=-1e-3", -0.002, True),
    ],
)
def test_bounds(text, value, passes) -> None:
    gate = Gate.parse(text)
    metrics = (metric(gate.figure, value),)
    if passes:
        assert "passed" in gate.check(metrics, None)
    else:
        says = (
            rf"gate '{text}': {gate.figure} is {value:g}, must be {gate.comparison} {gate.bound:g}"
        )
        with pytest.raises(GateError, match=says):
            gate.check(metrics, None)


@pytest.mark.parametrize(
    "text",
    [
        *("coverage", "coverage=0.8", "coverage>=", "coverage>=x", "coverage>=nan", "", "worse"),
        *("not-worse:coverage:x", "not-worse:coverage:-1", "not-worse:coverage:inf"),
    ],
)
def test_what_is_no_gate_is_refused(text) -> None:
    with pytest.raises(ConfigError, match=r"gate is .*allowed: FIGURE>=NUMBER"):
        Gate.parse(text)


@pytest.mark.parametrize("text", ["beauty>=1", "not-worse:beauty"])
def test_unknown_figures_are_refused_with_those_there_are(text) -> None:
    with pytest.raises(ConfigError, match=r"no figure 'beauty', allowed: .*coverage"):
        Gate.parse(text)


def test_figures_that_will_not_be_measured_are_refused_before() -> None:
    gates = parse_gates(["coverage>=0.8", "not-worse"])
    check_measured(gates, ("fid", "coverage"), "remedy")
    with pytest.raises(ConfigError, match=r"'not-worse', but frechet_distance .* only coverage; r"):
        check_measured(gates, ("coverage",), "remedy")
    with pytest.raises(ConfigError, match=r"only nothing"):
        check_measured(gates, (), "remedy")


def test_not_worse_is_measured_from_the_end_of_currents_interval(make_bundle) -> None:
    current = manifest(make_bundle, metric(value=0.8))
    gate = Gate.parse("not-worse:coverage")
    assert "0.7" in gate.check((metric(value=0.7),), current)
    with pytest.raises(GateError, match=r"coverage is 0.69, must be >= 0.7: CURRENT \(tiny vers"):
        gate.check((metric(value=0.69),), current)


def test_lower_is_better_for_distances(make_bundle) -> None:
    current = manifest(make_bundle, metric("frechet_distance", 4.0, interval=[3.0, 5.0]))
    gate = Gate.parse("not-worse")
    assert gate.check((metric("frechet_distance", 0.1),), current)
    assert gate.check((metric("frechet_distance", 5.0),), current)
    with pytest.raises(GateError, match=r"frechet_distance is 5.1, must be <= 5"):
        gate.check((metric("frechet_distance", 5.1),), current)


def test_the_first_of_a_name_is_not_worse_than_nothing() -> None:
    assert "no CURRENT" in Gate.parse("not-worse:coverage").check((metric(),), None)


def test_other_protocols_are_refused_naming_both(make_bundle) -> None:
    current = manifest(make_bundle, metric(n=100))
    with pytest.raises(GateError, match=r"measured differently: n 500 here, 100 there"):
        Gate.parse("not-worse:coverage").check((metric(),), current)
    # What is a result itself makes no other protocol.
    same = manifest(make_bundle, metric(floor=0.1, ceiling=0.2, interval=[0, 1], resamples="7"))
    assert Gate.parse("not-worse:coverage").check((metric(),), same)


def test_a_margin_takes_the_place_of_the_interval(make_bundle) -> None:
    current = manifest(make_bundle, metric(value=0.8))
    gate = Gate.parse("not-worse:coverage:0.02")
    assert "passed" in gate.check((metric(value=0.78),), current)
    with pytest.raises(
        GateError, match=r"must be >= 0.78: CURRENT .* has 0.8, and the margin ends"
    ):
        gate.check((metric(value=0.77),), current)
    current = manifest(make_bundle, metric("frechet_distance", 4.0))
    gate = Gate.parse("not-worse:frechet_distance:0")
    assert "passed" in gate.check((metric("frechet_distance", 4.0),), current)
    with pytest.raises(GateError, match=r"must be <= 4"):
        gate.check((metric("frechet_distance", 4.1),), current)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("text", ["coverage>=0.8", "coverage<=0.8", "not-worse:coverage"])
def test_what_is_no_number_passes_no_gate(make_bundle, text, value) -> None:
    with pytest.raises(GateError, match=r"coverage is (nan|inf), must be a number"):
        Gate.parse(text).check((metric(value=value),), manifest(make_bundle, metric()))


def test_nothing_is_compared_with_what_is_no_number(make_bundle) -> None:
    current = manifest(make_bundle, metric(interval=[None, None]))
    with pytest.raises(GateError, match=r"with which nothing can be compared"):
        Gate.parse("not-worse:coverage").check((metric(),), current)


def test_what_can_never_be_judged_is_refused_before(make_bundle) -> None:
    gates = parse_gates(["coverage>=0.8", "not-worse:coverage"])
    assert figures_against_current(gates, ["coverage", "recall"]) == {"coverage"}
    assert figures_against_current(gates[:1], ["coverage", "recall"]) == set()
    coming = {"coverage": {"n": 500, "features": "random"}}
    check_comparable(gates, coming, manifest(make_bundle, metric()))
    with pytest.raises(
        ConfigError, match=r"CURRENT \(tiny version 1\) has no figure coverage: non"
    ):
        check_comparable(gates, coming, manifest(make_bundle))
    check_comparable(gates[:1], coming, manifest(make_bundle))
    with pytest.raises(ConfigError, match=r"measured differently: n 500 here, 100 there"):
        check_comparable(gates, coming, manifest(make_bundle, metric(n=100)))


def test_a_figure_that_either_lacks_is_refused(make_bundle) -> None:
    gate = Gate.parse("not-worse:coverage")
    with pytest.raises(GateError, match=r"CURRENT \(tiny version 1\) has no figure coverage"):
        gate.check((metric(),), manifest(make_bundle))
    with pytest.raises(GateError, match=r"coverage was not measured on this model, only recall"):
        gate.check((metric("recall"),), manifest(make_bundle, metric()))


def test_all_failures_are_told_at_once() -> None:
    gates = parse_gates(["coverage>=0.9", "coverage>=0.1", "coverage>=0.95"])
    with pytest.raises(GateError, match=r">=0\.9'.*; .*>=0\.95'") as caught:
        check_gates(gates, (metric(),), None)
    assert "0.1" not in str(caught.value)
    assert caught.value.exit_code == 8
    assert len(check_gates(gates[1:2], (metric(),), None)) == 1


def test_current_is_read_from_the_repository(tmp_path, make_bundle) -> None:
    repository = Repository(tmp_path)
    assert current_of(repository, "tiny") is None
    repository.publish("tiny", make_bundle())
    found = current_of(repository, "tiny")
    assert found is not None
    assert found.version == 1
