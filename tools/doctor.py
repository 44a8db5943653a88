"""Says what is installed, which engine and device would be used, and what is missing.

Ends with status 0 if Focal3D can be used, with 1 if something that it needs is missing.
"""

from __future__ import annotations

import argparse
import sys

try:
    from detector.cli import run_tool
except ModuleNotFoundError as error:
    sys.exit(f"  x  {error.name} is not installed; run `make install` first.")


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    from rich.console import Console
    from rich.text import Text

    from detector.doctor import State, examine, usable

    styles = {
        State.OK: "green", State.OPTIONAL: "dim", State.LIMITED: "yellow", State.BROKEN: "bold red",
    }  # fmt: skip
    console = Console()
    findings = examine()
    for finding in findings:
        mark = Text(f"{finding.state.value:>3}  ", style=styles[finding.state])
        console.print(mark + Text(finding.sentence, style=""), soft_wrap=True)
    if usable(findings):
        console.print("Focal3D can be used.")
        return 0
    console.print("Focal3D can't be used until the lines marked x are mended.")
    return 1


if __name__ == "__main__":
    run_tool(main)
