"""Prepare the standard streams, which may be closed or unable to show every letter."""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Let stdin, stdout and stderr be /dev/null where they are closed, as a daemon or cron may leave them.

    Otherwise the next file that is opened, a database or a lease, gets the number of one of them, and what is printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: this one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False, errors="backslashreplace"))  # noqa: SIM115


def spell_out_what_cannot_be_shown() -> None:
    """Let a terminal without UTF-8 not stop anybody from reading a list."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
