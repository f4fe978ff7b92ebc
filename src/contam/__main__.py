"""The command `contam`, also as `python -m contam`."""

import signal
import sys


def main() -> int:
    """Run one command; Ctrl-C while its modules are imported ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from contam import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
