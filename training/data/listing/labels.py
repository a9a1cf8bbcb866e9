"""Lists of labels: which class each image is of, as CSV, JSON or JSON lines.

The formats are StyleGAN's dataset.json ({"labels": [[file, number], ...]}), Hugging Face's
metadata.csv and metadata.jsonl (a column file_name and others), one object {file: class}, and
tables with a column of files and one of classes under other usual names.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from training.data.listing.member import Member
from training.errors import DataError

LISTS = (
    "dataset.json",
    "metadata.jsonl",
    "metadata.csv",
    "labels.csv",
    "labels.json",
    "labels.jsonl",
)
"""Names that are recognised without --data.labels."""

FILE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_id", "id", "name")
LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "category", "target", "cls")

Labels = dict[str, str]


class NoColumnError(DataError):
    """A table has no column of labels: it may be of captions."""


def read_labels(member: Member, columns: tuple[str, ...]) -> Labels:
    """The class of each file that a list names; of a file without one the empty text.

    Args:
        member: the list; its suffix is .csv, .json or .jsonl.
        columns: names of the column of labels, the first one that is there counts.

    Raises:
        NoColumnError: it has no such column.
        DataError: it can't be read, or isn't such a list.
    """
    suffix = member.name.rpartition(".")[2].lower()
    readers = {"csv": _csv, "json": _json, "jsonl": _json_lines}
    if suffix not in readers:
        raise DataError(
            f"data.labels is {member.name}, allowed: a file .csv, .json or .jsonl; write the "
            "labels as CSV with the header file_name,label"
        )
    labels: Labels = {}
    try:
        text = member.read().decode("utf-8-sig")
        for file, label in readers[suffix](text, columns):
            file = file.replace("\\", "/").removeprefix("./")
            if labels.setdefault(file, label) != label:
                raise ValueError(f"{file!r} has two classes, {labels[file]!r} and {label!r}")
    except NoColumnError as error:
        raise NoColumnError(f"{member.name}: {error}") from None
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise DataError(
            f"{member.name} is no list of labels: {error}; allowed: CSV with the header "
            'file_name,label, JSON {"FILE": CLASS} or {"labels": [[FILE, CLASS], ...]}, or JSON '
            "lines with file_name and label; correct it, or take the folders with --data.labels "
            "none"
        ) from error
    return labels


def label_in(record: object, columns: tuple[str, ...]) -> str:
    """The label of a JSON object; empty where it has none. ValueError for one that is no class."""
    if not isinstance(record, dict):
        return ""
    key = next((name for name in columns if name in record), None)
    return "" if key is None else _text(record[key])


def _csv(text: str, columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    header = list(rows.fieldnames or ())
    file, label = _column(header, FILE_COLUMNS), _column(header, columns)
    if file is None:
        raise ValueError(f"its columns are {', '.join(header) or 'none'}, none of them of files")
    if label is None:
        raise NoColumnError(
            f"its columns are {', '.join(header)}, none of them {', '.join(columns)}; name the "
            "one of classes with --data.label-column"
        )
    for row in rows:
        if row[file]:
            yield row[file], (row[label] or "").strip()


def _column(header: list[str], names: tuple[str, ...]) -> str | None:
    given = {column.strip().lower(): column for column in header}
    return next((given[name.lower()] for name in names if name.lower() in given), None)


def _json(text: str, columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    content = json.loads(text)
    if isinstance(content, list):
        yield from _objects(content, columns)
    elif not isinstance(content, dict):
        raise TypeError("it holds no object")
    elif "labels" in content and isinstance(content["labels"], list | None):
        for pair in content["labels"] or ():  # null in StyleGAN's lists without labels
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
                raise TypeError(f"{str(pair)[:60]} is no pair of file and class")
            yield pair[0], _text(pair[1])
    else:
        for file, value in content.items():
            yield file, label_in(value, columns) if isinstance(value, dict) else _text(value)


def _json_lines(text: str, columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield from _objects([json.loads(line) for line in text.splitlines() if line.strip()], columns)


def _objects(records: list[Any], columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for record in records:
        file = next((record[name] for name in FILE_COLUMNS if name in record), None)
        if not isinstance(file, str):
            raise TypeError(f"{str(record)[:60]} names no file")
        if not any(name in record for name in columns):
            raise NoColumnError(
                f"an object has {', '.join(record)}, none of them {', '.join(columns)}; name the "
                "one of classes with --data.label-column"
            )
        yield file, label_in(record, columns)


def _text(value: object) -> str:
    """A label as the name of a class."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{str(value)[:40]} is no class: allowed are a whole number and a name")
    return str(value).strip()
