"""The page: text, tables, charts and pictures as one HTML file that asks nobody for anything.

Styles, scripts, numbers and pictures are in the file. `web/` has the page's own style and script,
and uPlot (MIT; uPlot.LICENSE), which draws the series.
"""

import html
import json
from collections.abc import Sequence
from importlib import resources

from training.report.charts import Chart
from training.report.samples import Frame
from training.report.summary import Summary

_WEB = resources.files("training.report") / "web"
_GOOD = ("improving", "settled")
_OPEN = ("early", "unmeasured", "empty")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Page:
    """Collects the charts while the text is written."""

    def __init__(self) -> None:
        """Starts without charts."""
        self.charts: list[Chart] = []

    def html(self, summaries: Sequence[Summary], comparison: Sequence[Chart]) -> str:
        """Writes the page. comparison: charts with a line for each run."""
        names = ", ".join(each.name for each in summaries)
        parts = [self._head(summaries)]
        if len(summaries) > 1:
            parts.append(_compared(summaries))
            parts.append(self._grid("Side by side", comparison))
        for index, each in enumerate(summaries):
            parts.append(self._run(each, index, alone=len(summaries) == 1))
        body = "\n".join(parts)
        data = json.dumps(self.charts, separators=(",", ":"), allow_nan=False)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            f"<title>Report: {_text(names)}</title>\n"
            f"<!-- Draws with uPlot, under this licence:\n{_file('uPlot.LICENSE')}-->\n"
            f"<style>{_file('uPlot.min.css')}{_file('report.css')}</style>\n</head>\n<body>\n"
            f"{body}\n"
            f'<script type="application/json" id="charts">{_inert(data)}</script>\n'
            f"<script>{_file('uPlot.iife.min.js')}</script>\n"
            f"<script>{_file('report.js')}</script>\n</body>\n</html>\n"
        )

    def _head(self, summaries: Sequence[Summary]) -> str:
        title = summaries[0].name if len(summaries) == 1 else f"{len(summaries)} runs"
        themes = "".join(
            f'<label><input type="radio" name="theme" value="{value}"'
            f"{' checked' if value == 'light dark' else ''}> {label}</label>"
            for value, label in (("light dark", "system"), ("light", "light"), ("dark", "dark"))
        )
        return (
            f"<header><h1>{_text(title)}</h1>"
            f'<fieldset class="themes"><legend>Colours</legend>{themes}</fieldset></header>\n'
            "<main>"
        )

    def _run(self, summary: Summary, index: int, *, alone: bool) -> str:
        parts = [
            _verdict(summary, level=2),
            _facts(summary),
            _samples(summary, index),
            self._grid("While it trained", summary.charts),
            self._stability(summary),
            _events(summary),
            _figures(summary),
            _again(summary),
        ]
        content = "\n".join(part for part in parts if part)
        if alone:
            return f"{content}\n</main>"
        name = _text(summary.name)
        is_open = " open" if index == 0 else ""
        return f'<details class="run"{is_open}><summary>{name}</summary>{content}</details>'

    def _grid(self, title: str, charts: Sequence[Chart]) -> str:
        if not charts:
            return ""
        figures = "".join(map(self._figure, charts))
        return f'<section><h2>{_text(title)}</h2><div class="grid">{figures}</div></section>'

    def _figure(self, chart: Chart) -> str:
        number = len(self.charts)
        self.charts.append({**chart, "id": f"chart{number}"})
        return (
            f"<figure><figcaption><h3>{_text(chart['title'])}</h3><p>{_text(chart['read'])}</p>"
            f'</figcaption><div class="chart" id="chart{number}"></div>{_ends(chart)}</figure>'
        )

    def _stability(self, summary: Summary) -> str:
        if not summary.planes and not summary.curves:
            return ""
        drawn = "".join(
            f"<figure><figcaption><h3>{_text(title)}</h3><p>{_text(read)}</p></figcaption>"
            f"{svg}</figure>"
            for title, read, svg in summary.planes
        )
        said = "".join(f"<li>{_text(line)}</li>" for line in summary.measured)
        figures = "".join(map(self._figure, summary.curves))
        return (
            "<section><h2>Stability, as measured</h2>"
            f"{f'<ul>{said}</ul>' if said else ''}"
            f'<div class="grid">{drawn}{figures}</div></section>'
        )


def _verdict(summary: Summary, level: int) -> str:
    verdict = summary.verdict
    is_open = verdict.state in _OPEN or bool(verdict.signs)
    kind = "open" if is_open else "good" if verdict.state in _GOOD else "bad"
    evidence = "".join(f"<li>{_text(line)}</li>" for line in verdict.evidence)
    advice = "".join(f"<li>{_text(line)}</li>" for line in verdict.advice)
    head = _text(verdict.head)
    return (
        f'<section class="verdict {kind}" data-state="{verdict.state}">'
        f'<h{level} class="sentence"><strong>{head}:</strong> {_text(verdict.because)}.</h{level}>'
        + (f"<h3>What to change</h3><ul>{advice}</ul>" if advice else "")
        + (f"<h3>What else was seen</h3><ul>{evidence}</ul>" if evidence else "")
        + "</section>"
    )


def _facts(summary: Summary) -> str:
    cells = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
        for name, value in summary.facts.items()
    )
    return f'<dl class="facts">{cells}</dl>'


def _samples(summary: Summary, index: int) -> str:
    parts = []
    if summary.frames:
        parts.append(_slider(summary.frames, index))
    if summary.neighbours is not None:
        parts.append(
            "<figure><figcaption><h3>Nearest real images</h3><p>First in each row an image of G's, "
            "then the real ones nearest to it: the same image again is memorisation.</p>"
            f"</figcaption>{_picture(summary.neighbours, 'Generated images and their neighbours')}"
            "</figure>"
        )
    if not parts:
        return ""
    return f'<section><h2>Samples</h2><div class="grid">{"".join(parts)}</div></section>'


def _slider(frames: Sequence[Frame], index: int) -> str:
    last = frames[-1]
    pictures = json.dumps([{"kimg": f.kimg, "url": f.url} for f in frames], allow_nan=False)
    slider = ""
    if len(frames) > 1:
        slider = (
            f'<p class="slider"><label for="slider{index}">Thousands of images shown:</label> '
            f'<output id="kimg{index}" for="slider{index}">{last.kimg:g}</output>'
            f'<input type="range" id="slider{index}" min="0" max="{len(frames) - 1}" '
            f'value="{len(frames) - 1}" data-of="{index}"></p>'
            f'<script type="application/json" id="frames{index}">{_inert(pictures)}</script>'
        )
    picture = _picture(last, "Grid of generated images", f"frame{index}")
    return (
        "<figure><figcaption><h3>Samples over time</h3><p>The same seeds at every tick: tiles that "
        "become alike are a collapse, tiles that keep changing have not settled.</p></figcaption>"
        f"{picture}{slider}</figure>"
    )


def _picture(frame: Frame, alt: str, identity: str = "") -> str:
    named = f' id="{identity}"' if identity else ""
    return (
        f'<img class="samples"{named} alt="{_text(alt)}" src="{frame.url}" width="{frame.width}" '
        f'height="{frame.height}">'
    )


def _events(summary: Summary) -> str:
    if not summary.events:
        return ""
    rows = [(f"{e['kimg']:g}", e["kind"], e["text"]) for e in summary.events]
    return (
        "<section><h2>Events of the watchdog</h2>"
        f"{_table(('kimg', 'what', 'figure and meaning'), rows)}</section>"
    )


def _figures(summary: Summary) -> str:
    if not summary.figures:
        return ""
    head = ("figure", "value", "95 % interval", "real images", "noise")
    return (
        "<section><h2>Figures of the exported model</h2>"
        "<p>Between what held-out real images and noise reach by the same protocol.</p>"
        f"{_table(head, summary.figures)}</section>"
    )


def _again(summary: Summary) -> str:
    options = [(name, value) for name, value in summary.options.items()]
    note = "" if summary.is_exact else (
        "<p>Not read back to exactly these options, as of another release: config.json in the "
        "run's folder counts.</p>"
    )  # fmt: skip
    return (
        "<section><h2>To make it again</h2>"
        f'<pre tabindex="0"><code>{_text(summary.command)}</code></pre>{note}'
        f"<details><summary>All options</summary>{_table(('option', 'value'), options)}</details>"
        "</section>"
    )


def _compared(summaries: Sequence[Summary]) -> str:
    rows = [(each.name, each.facts.get("kimg", ""), each.verdict.sentence) for each in summaries]
    names = sorted({name for each in summaries for name in each.options})
    differing = [
        (name, *(each.options.get(name, "-") for each in summaries))
        for name in names
        if len({each.options.get(name) for each in summaries}) > 1
    ]
    head = ("option", *(each.name for each in summaries))
    options = _table(head, differing) if differing else "<p>No option differs.</p>"
    return (
        f"<section><h2>Verdicts</h2>{_table(('run', 'kimg', 'verdict'), rows)}</section>"
        f"<section><h2>Options that differ</h2>{options}</section>"
    )


def _ends(chart: Chart) -> str:
    """The chart's numbers in words and a table, for those who don't see it or print it."""
    rows = []
    for each in chart["series"]:
        known = [value for value in each["y"] if value is not None]
        if known:
            ends = (known[0], min(known), max(known), known[-1])
            rows.append((each["label"], *(f"{value:.4g}" for value in ends)))
    table = _table(("series", "first", "least", "most", "last"), rows)
    return f"<details><summary>In numbers</summary>{table}</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{_text(each)}</th>' for each in head)
    lines = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    # A wide table scrolls by itself, also by the keyboard.
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{_text(", ".join(head[:3]))}">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _inert(text: str) -> str:
    """JSON that can't end the script element it stands in."""
    return text.replace("<", "\\u003c")


def _file(name: str) -> str:
    return (_WEB / name).read_text(encoding="utf-8")
