"""What every tool in `tools/` shares: how it starts and how it ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from detector.errors import InputError

Item = TypeVar("Item")


def run_tool(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits: 0 on success, 2 with one sentence on input that the user can mend."""
    try:
        _check_datasets_package()
        status = main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:
        status = 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status or 0)


def progress(items: Iterable[Item], doing: str, count: int | None = None) -> Iterator[Item]:
    """The items one by one, with a bar, their number and the time left where a person looks on.

    Args:
        count: how many there are, for items without a length.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        yield from bar.track(items, total=count, description=doing)


def write_json(path: str | Path, value: Any, allow_nan: bool = False) -> None:
    """Writes a JSON file in one step: there is the whole file, or what was there before.

    NaN is no JSON; `allow_nan` is for formats that have it all the same.

    Raises:
        InputError: the file can't be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value, indent=2, allow_nan=allow_nan) + "\n")
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); choose a file that you may write to"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _check_datasets_package() -> None:
    """The package of the same name by Hugging Face must not be taken for ours."""
    import datasets

    ours = Path(__file__).resolve().parents[1] / "datasets"
    found = Path(datasets.__file__ or "").resolve().parent
    if found != ours:
        raise InputError(
            f"the package 'datasets' was found in {found}, not in {ours}: another package of that "
            f"name hides ours; install Focal3D into an environment of its own (`make install`)"
        )
