"""The command `contam`, also as `python -m contam`."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main() -> int:
    """Run one command; Ctrl-C while its modules are imported ends the process without a word."""
    try:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        return INTERRUPTED
    from contam import cli

    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
