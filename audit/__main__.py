"""The command as a process of its own: ``audit``, or ``python -m audit``."""

import gc

from audit.cli import main
from audit.memory import keep_freed_memory


def command() -> None:
    """Run the command, and end the process."""
    keep_freed_memory()
    try:
        main()
    finally:
        # At its end the interpreter looks several times through all that the libraries have
        # loaded, for more than a second; there is nothing to be found.
        gc.freeze()


if __name__ == "__main__":
    command()
