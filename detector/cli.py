"""What every tool in `tools/` shares: how it starts and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from detector.errors import InputError


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
