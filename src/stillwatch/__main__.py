"""``python -m stillwatch`` and the installed command."""

import sys

from stillwatch.cli import main


def run() -> None:
    """Run the command line and exit with its code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
