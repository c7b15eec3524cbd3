"""`python -m studies`: this module imports nothing slow before Ctrl-C is taken care of."""

import signal
import sys


def main() -> int:
    """Run the command line of this process; return its exit code.

    The first Ctrl-C ends the command, at whatever moment, with one line and the exit code 130.
    While the command ends, further ones are ignored: they would cut its last words off.
    """
    signal.signal(signal.SIGINT, _interrupt_once)
    try:
        from studies import commands

        return commands.main()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    finally:
        # What Python does at its exit is not to be interrupted either.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt_once(*_) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
