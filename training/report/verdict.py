"""What a training came to, in a sentence, with what shows it and what to change.

Failures are those of the watchdog's detectors, asked again of the figures in metrics.jsonl, so that
a run that was not watched has a verdict, too. Without one, the looks at the images decide. This
module draws nothing.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from training.evaluation.looks import HEADLINE
from training.evaluation.verdict import Circumstances, verdict
from training.report.history import History
from training.runs.catalogue import Run, is_number
from training.runs.quality import best_look, much_better, stale_since
from training.watchdog.alarms import AlarmCounter
from training.watchdog.detectors import DETECTORS, Alarm, Diagnostics
from training.watchdog.watchdog import PREFIX

STATES = {
    "divergence": "Diverged",
    "collapse": "Collapsed",
    "memorisation": "G copies the training images",
    "vanishing": "Saturated, G learns nothing any more",
    "saturation": "Saturated, D is sure of everything",
    "indifference": "D tells nothing apart",
    "overfitting": "D overfits",
    "oscillation": "Oscillating",
    "past": "Past its best",
    "improving": "Still improving",
    "settled": "Settled",
    "early": "Too early to tell",
    "unmeasured": "Nothing failed, and nobody measured the images",
    "empty": "Nothing was trained yet",
}
"""States by name, the gravest first: the heads of their sentences."""
_RESULTS = ("divergence", "collapse", "memorisation")  # failures of the images themselves
_NEEDED = ("gradient_G", "gradient_D", "weights_G", "weights_D", "logits", "slope", "spread",
           "twins")  # fmt: skip
_LEAST_LOOKS = 3
_RECENT = 0.25  # of the images shown
_MOVED = 0.02  # of the Frechet distance
_POINTS, _OFF_POINTS = "good_points", "share of points off the mixture"
_VITAL = ("loss_", "gradient_", "scores.")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A run in a sentence."""

    state: str
    """Entry of STATES."""
    because: str
    """The rest of the sentence: what shows it."""
    evidence: list[str] = field(default_factory=list)
    """More that was seen, in sentences."""
    advice: list[str] = field(default_factory=list)
    """What to change."""
    signs: tuple[str, ...] = ()
    """Failures of which there are signs, while the images improve."""

    @property
    def sentence(self) -> str:
        """The verdict with its evidence."""
        return f"{self.head}: {self.because}."

    @property
    def head(self) -> str:
        """The verdict alone."""
        signs = f", with signs of {' and '.join(self.signs)}" if self.signs else ""
        return f"{STATES[self.state]}{signs}"


def verdict_of(run: Run, history: History, results: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Judges a run.

    Args:
        run: its folder.
        history: of its metrics.
        results: the newest of each command of `training.stability`, as JSON.
    """
    alarms, quality = alarms_of(run), _quality(run)
    seen = [*_past_alarms(run, alarms), *_of_model(run), *_measured(results)]
    of_images = [f"{_capital(quality.because)}."]
    if (diverged := _diverged(run, history)) is not None:
        return Verdict(
            state="divergence",
            because=diverged,
            evidence=[*of_images, *seen],
            advice=[f"{_capital(DETECTORS['divergence'].advice)}.", _back_to(run)],
        )
    order = list(STATES)
    alarms.sort(key=lambda alarm: order.index(alarm.failure))
    # Signs of a failure are no failure yet where the images become better.
    grave = [a for a in alarms if a.failure in _RESULTS or quality.state != "improving"]
    if grave:
        first, *others = grave
        return Verdict(
            state=first.failure,
            because=_alarm(first),
            evidence=[*(f"{_capital(_alarm(each))}." for each in others), *of_images, *seen],
            advice=[f"{_capital(DETECTORS[first.failure].advice)}."],
        )
    signs = [f"A sign of {each.failure}: {_alarm(each)}." for each in alarms]
    return Verdict(
        state=quality.state,
        because=quality.because,
        evidence=[*signs, *seen],
        advice=_advice(run, quality.state),
        signs=tuple(each.failure for each in alarms),
    )


def alarms_of(run: Run) -> list[Alarm]:
    """The alarms at the end of the run, by its figures; none where they aren't there."""
    config = run.options
    total, ignored = config.get("total_kimg"), config.get("watchdog.ignore")
    counter = AlarmCounter(
        total_nimg=round(total * 1000) if _is_finite(total) else 0,
        ignore=[name for name in DETECTORS if isinstance(ignored, list) and name in ignored],
    )
    ticks = [tick for tick in map(_diagnostics, run.metrics) if tick is not None]
    return counter.follow(ticks).alarms()


def _diagnostics(line: Mapping[str, Any]) -> Diagnostics | None:
    """The watchdog's figures of a tick; None for a tick that has not all of them."""
    found = {
        name.removeprefix(PREFIX): float(value)
        for name, value in line.items()
        if is_number(value) and (name.startswith((PREFIX, "gradient_")) or name == "cur_nimg")
    }
    is_whole = all(name in found for name in _NEEDED) and math.isfinite(found["cur_nimg"])
    return found if is_whole else None


def _diverged(run: Run, history: History) -> str | None:
    """What shows a divergence that ended the training, or numbers that aren't finite at its end."""
    outcome = run.outcome
    if outcome.startswith("error:") and "is not finite" in outcome:
        return outcome.removeprefix("error: ").split(";")[0]
    broken = {n: k for n, k in history.broken.items() if n.startswith(_VITAL)}
    if broken:
        names, since = sorted(broken, key=lambda name: broken[name]), min(broken.values())
        return f"{', '.join(names[:3])} is not finite from {since:g} kimg on"
    return None


@dataclass(frozen=True, kw_only=True)
class _Quality:
    state: str
    because: str


def _quality(run: Run) -> _Quality:
    """What the looks at the images say."""
    name, looks = _looks(run)
    if not run.metrics:
        return _Quality(state="empty", because="there is no tick in metrics.jsonl")
    if not looks:
        why = "there is no look at the images in metrics.jsonl"
        return _Quality(state="unmeasured", because=why)
    last = looks[-1]
    if len(looks) < _LEAST_LOOKS:
        why = f"{_num(len(looks), 'look')} at the images so far, {name} {_at(last)}"
        return _Quality(state="early", because=why)
    best = best_look(looks)
    assert best is not None
    floor = {HEADLINE: last.get(f"{HEADLINE}.floor", 0.0)}
    share = f", {_share(last):.0%} of the way from noise to real images" if _has_ends(last) else ""
    if much_better(looks, floor) is not None:
        why = f"the images were better before, {name} {_at(best)} and {_at(last)}"
        return _Quality(state="past", because=f"{why}{share}")
    since = stale_since(looks)
    start = last["cur_nimg"] * (1 - _RECENT)
    before = best_look([look for look in looks if look["cur_nimg"] <= start])
    if since is None and before is not None and best["cur_nimg"] > start:
        gain = 1 - last[HEADLINE] / before[HEADLINE] if before[HEADLINE] else 0.0
        if gain > _MOVED:
            why = (
                f"the {name} fell by {gain:.0%}, from {_at(before)}, the best of the first three "
                f"quarters, to {_at(last)}"
            )
            return _Quality(state="improving", because=f"{why}{share}")
    why = f"the {name} is {_at(last)}, the best was {_at(best)}"
    return _Quality(state="settled", because=f"{why}{share}")


def _looks(run: Run) -> tuple[str, list[dict[str, float]]]:
    """The distance from the data that looks measure, by its name, and the looks that have it.

    For points of the plane it is the share that lies off the mixture.
    """
    ends = ("", ".floor", ".ceiling")
    points = [
        look | {f"{HEADLINE}{end}": 1 - look[f"{_POINTS}{end}"] for end in ends}
        for look in run.looks
        if all(is_number(look.get(f"{_POINTS}{end}")) for end in ends)
    ]
    name, looks = (_OFF_POINTS, points) if points else ("Frechet distance", run.looks)
    known = [look for look in looks if _is_finite(look.get(HEADLINE))]
    return name, known


def _at(look: Mapping[str, float]) -> str:
    return f"{look[HEADLINE]:.4g} at {look['cur_nimg'] / 1000:g} kimg"


def _has_ends(look: Mapping[str, float]) -> bool:
    floor, ceiling = (look.get(f"{HEADLINE}.{end}") for end in ("floor", "ceiling"))
    return is_number(floor) and is_number(ceiling) and 0 < 2 * floor < ceiling < math.inf


def _share(look: Mapping[str, float]) -> float:
    """Of the way from noise (0) to real images (1), by logarithms, as distances shrink by factors.

    So does the verdict on an exported model (`training.evaluation.verdict`).
    """
    floor, ceiling = look[f"{HEADLINE}.floor"], look[f"{HEADLINE}.ceiling"]
    share = math.log(ceiling / max(look[HEADLINE], floor)) / math.log(ceiling / floor)
    return min(1.0, max(0.0, share))


def _alarm(alarm: Alarm) -> str:
    detector = DETECTORS[alarm.failure]
    return (
        f"{detector.quantity} is {alarm.value:.4g}, {detector.alarming} {detector.threshold:g}, "
        f"since {alarm.since_nimg / 1000:g} kimg: {detector.meaning}"
    )


def _past_alarms(run: Run, present: list[Alarm]) -> list[str]:
    """What the watchdog saw before, and isn't so any more."""
    still = {alarm.failure for alarm in present}
    gone: dict[str, float] = {}
    for event in events_of(run):
        if event["kind"] == "alarm" and event["failure"] not in still:
            gone.setdefault(event["failure"], event["kimg"])
    return [
        f"The watchdog saw {failure} at {kimg:g} kimg; it is gone at the end."
        for failure, kimg in gone.items()
    ]


def events_of(run: Run) -> list[dict[str, Any]]:
    """Alarms and rescues of watchdog.json: kind, kimg, failure, text; by kimg."""
    content, found = run.watchdog, []
    for kind, entries in (("alarm", content.get("alarms")), ("rescue", content.get("rescues"))):
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict) or not _is_finite(entry.get("cur_nimg")):
                continue
            failure = str(entry.get("failure", "failure"))
            to_nimg = entry.get("to_nimg")
            text = entry.get("says") or (
                f"{failure}: back to {(to_nimg if _is_finite(to_nimg) else 0) / 1000:g} kimg, "
                f"{entry.get('remedy')}: {entry.get('change')}"
            )
            kimg = entry["cur_nimg"] / 1000
            found.append({"kind": kind, "kimg": kimg, "failure": failure, "text": str(text)})
    return sorted(found, key=lambda event: event["kimg"])


def _measured(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The verdicts of the instrument's commands."""
    return [
        f"stability {name}, at {result['cur_nimg'] / 1000:g} kimg: {result['verdict']}"
        for name, result in results.items()
        if _is_finite(result.get("cur_nimg")) and isinstance(result.get("verdict"), str)
    ]


def _of_model(run: Run) -> list[str]:
    """The verdict on the exported model's figures."""
    if run.manifest is None:
        return []
    told = Circumstances(
        num_images=run.manifest.dataset.num_images,
        augmented=bool(run.options.get("augment.policy")),
        is_stale=stale_since(run.looks) is not None,
    )
    lines = verdict(run.manifest.metrics, told)[:1]
    return [f"The exported model: {line.removeprefix('verdict: ')}" for line in lines]


def _advice(run: Run, state: str) -> list[str]:
    folder, total = shlex.quote(str(run.folder)), run.options.get("total_kimg")
    longer = f"--total-kimg {2 * total:g}" if _is_finite(total) else "a larger --total-kimg"
    best = "publishes the best look's, if its checkpoint is still there"
    return {
        "past": [
            f"python -m training.runs export {folder} --checkpoint best {best}. Next time stop "
            "earlier, add images or --augment.policy diffaugment, or lower both lr at the end.",
        ],
        "improving": [f"Train longer: python -m training.run --resume {folder} {longer}."]
        if run.has_ended or not run.is_running  # it still holds its lock when it writes its report
        else ["Let it train on."],
        "settled": [
            "More of the same is likely to gain nothing: more images, augmentation, a larger "
            "network, or a schedule that lowers both lr (--schedules optim_G.lr=0@KIMG:cosine)."
        ],
        "early": ["Wait for more ticks."],
        "unmeasured": ["Set --evaluate-kimg, and look at the samples meanwhile."],
        "empty": ["Start it, or look into log.txt for why it ended."],
    }[state]


def _back_to(run: Run) -> str:
    numbers = run.checkpoints
    if not numbers:
        return "There is no checkpoint to go back to."
    words = f"--resume {shlex.quote(str(run.folder))}"
    return f"{words} goes on from the last checkpoint, of {numbers[-1] / 1000:g} kimg."


def _is_finite(value: object) -> TypeGuard[float]:
    return is_number(value) and math.isfinite(value)


def _num(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
