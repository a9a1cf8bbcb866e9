"""Pages of docs/ that are made of the code: `python -m serving.pages docs` writes them anew.

errors.md of serving/errors.py and the client's, metrics.md of serving/metrics.py, configuration.md
of serving/settings.py. A test compares them with what this makes.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

from serving.client.errors import ClientError, ForeignAnswerError, UnreachableError
from serving.client.retries import RETRIED
from serving.errors import PROBLEM_URI, problems
from serving.metrics import DESCRIBED
from serving.settings import Settings, flag, shown_default, variable

_MADE = "<!-- Made by `python -m serving.pages docs` of {source}: change that, not this. -->"

_ERRORS = f"""\
# Errors

{{made}}

An error is a problem document (RFC 9457, `application/problem+json`):

```json
{{{{
  "type": "{PROBLEM_URI}invalid-request",
  "title": "The request can't be carried out as it stands",
  "status": 400,
  "detail": "seeds[1] is -1, allowed are 0 .. 18446744073709551615 (2**64 - 1)"
}}}}
```

`type` is stable: programs compare it. `detail` names the field, its value, what is allowed and the
remedy for the case at hand. The answer's header `X-Request-Id` leads to the server's log. Types
begin with `{PROBLEM_URI}`; the part that follows is also the label `reason` of
`saddlepoint_requests_rejected_total`.

Under `/v2` the same problems have the same statuses and headers in the words of that protocol,
`application/json`:

```json
{{{{"error": "input 'SEED' has shape [2, 2], must be [N] or [N, 1]"}}}}
```

`error` is what `detail` is elsewhere; there is no `type`. The Python client raises an exception for
each, below `serving.client.ClientError`, with `type`, `status`, `title`, `detail`, `retry_after_s`.

{{table}}

The client asks again by itself where the last column says so, `Retry-After` permitting, and raises
the exception when its attempts or its time are at an end. It has two of its own:

{{client}}
"""

_METRICS = """\
# Metrics

{made}

`/metrics` speaks Prometheus' text format, for all processes of the server together: on `--port`,
where it needs an API key if the server has keys, or without one on `--metrics-port`. Counters
survive the death of a worker. Another HTTP process's counts show up to 0.1 s late.

{table}

Some questions:

```
# how long the slowest hundredth of the requests takes
histogram_quantile(0.99, sum by (le) (rate(saddlepoint_http_request_duration_seconds_bucket[5m])))
# images in a batch; rows computed in vain
rate(saddlepoint_batch_rows_sum[5m]) / rate(saddlepoint_batch_rows_count[5m])
sum(rate(saddlepoint_rows_padded_total[5m])) / sum(rate(saddlepoint_rows_generated_total[5m]))
# who is sent away, and why
sum by (reason) (rate(saddlepoint_requests_rejected_total[5m]))
# what to scale by (docs/scaling.md): images that wait, how busy the workers are
avg(saddlepoint_rows_waiting)
sum(rate(saddlepoint_compute_seconds_sum[30s])) / sum(saddlepoint_worker_lanes)
```
"""

_CONFIGURATION = """\
# Configuration

{made}

Every setting is a flag of `python -m serving.run` and a variable of its environment; the flag wins.
A variable that begins with `SADDLEPOINT_` and is no setting is refused.

{table}
"""

_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "word", Path: "path"}


def errors() -> str:
    """docs/errors.md."""
    rows = [
        (
            f"`{kind.slug}`",
            str(kind.status),
            _first_line(kind),
            kind.remedy,
            f"`{ClientError.known[kind.slug].__name__}`",
            "yes" if kind.status in RETRIED else "",
        )
        for kind in problems()
    ]
    head = ("type", "status", "when", "remedy", "exception of the client", "asked again")
    own = [
        (f"`{kind.__name__}`", _first_line(kind)) for kind in (UnreachableError, ForeignAnswerError)
    ]
    return _ERRORS.format(
        made=_MADE.format(source="serving/errors.py"),
        table=_table(head, rows),
        client=_table(("exception of the client", "when"), own),
    )


def metrics() -> str:
    """docs/metrics.md."""
    rows = [
        (
            f"`{entry.name}`",
            entry.kind,
            ", ".join(f"`{label}`" for label in entry.labels),
            entry.help,
        )
        for entry in DESCRIBED
    ]
    table = _table(("metric", "type", "labels", "what"), rows)
    return _METRICS.format(made=_MADE.format(source="serving/metrics.py"), table=table)


def configuration() -> str:
    """docs/configuration.md."""
    types = get_type_hints(Settings)
    rows = []
    for entry in dataclasses.fields(Settings):
        default = shown_default(entry)
        rows.append(
            (
                f"`{flag(entry.name)}`",
                f"`{variable(entry.name)}`",
                _kind(types[entry.name]),
                f"`{default}`" if default else "",
                entry.metadata["help"],
            )
        )
    table = _table(("flag", "variable", "value", "default", "what"), rows)
    return _CONFIGURATION.format(made=_MADE.format(source="serving/settings.py"), table=table)


PAGES: dict[str, Callable[[], str]] = {
    "errors.md": errors,
    "metrics.md": metrics,
    "configuration.md": configuration,
}


def _kind(kind: type) -> str:
    """A setting's type in words: Path | None is a path, a tuple is a list."""
    items = get_args(kind)
    if type(None) in items:
        return _WORDS[items[0]]
    return f"{_WORDS[items[0]]}s" if items else _WORDS[kind]


def _first_line(kind: type) -> str:
    text = kind.__doc__
    assert text is not None
    return text.splitlines()[0]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def main() -> int:
    """Writes the pages into a folder."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: python -m serving.pages docs", file=sys.stderr)
        return 2
    for name, page in PAGES.items():
        Path(sys.argv[1], name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
