"""The `penstock` command: start quickly, load one subcommand, and say what is missing.

Nothing but the standard library is imported until a command is known to need more, so that
`penstock` answers (with an instruction) even where no extra was installed.
"""

import sys


def main() -> None:
    """Run the command line; the entry point of the `penstock` script."""
    try:
        from penstock.cli.group import group
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.exit(
            "penstock: the commands need click, which no plain install brings; the library "
            "itself works without. Install an extra: pip install 'penstock[proxy]'"
        )
    group(prog_name="penstock")


if __name__ == "__main__":
    main()
