"""Asks a running server for images and saves them as one picture.

    make serve                                  # in another terminal
    .venv/bin/python examples/call_server.py

Prints what the server offers and writes grid.png: a row for each class of the model, eight seeds a
row, the same seeds in every row. A model without classes gives one square of images.
"""

import argparse
from pathlib import Path

from serving.client import Client, ClientError

NUM_COLUMNS = 8


def main(argv: list[str] | None = None) -> int:
    """Runs the example and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the server is")
    parser.add_argument("--out", type=Path, default=Path("grid.png"), help="the picture to write")
    options = parser.parse_args(argv)
    try:
        with Client(options.url) as client:
            model = client.models()[0]
            print(f"{model.name} version {model.version}: {model.image.width} pixels wide")
            labels = [row for row in range(len(model.labels or ())) for _ in range(NUM_COLUMNS)]
            num_rows = len(model.labels or range(NUM_COLUMNS))
            seeds = list(range(NUM_COLUMNS)) * num_rows if labels else list(range(NUM_COLUMNS**2))
            images = client.generate(seeds, labels=labels or None, model=model.name)
    except ClientError as error:
        print(f"error: {error.detail}")
        return 1
    # The server could lay the images out itself, as the smallest square: client.grid(seeds).
    width, height = images[0].size
    picture = images[0].resize((width * NUM_COLUMNS, height * num_rows))
    for index, image in enumerate(images):
        row, column = divmod(index, NUM_COLUMNS)
        picture.paste(image, (column * width, row * height))
    picture.save(options.out)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
