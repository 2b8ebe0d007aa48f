"""Prepare the standard streams, which may be closed or unable to show every letter, and say whether colours are wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


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


def color_wanted(environ: Mapping[str, str]) -> bool | None:
    """Return whether there are to be colours; None: where it is a terminal.

    ``NO_COLOR`` wins (no-color.org), then ``FORCE_COLOR`` and ``CLICOLOR_FORCE``, then ``CLICOLOR=0`` (bixense.com/clicolors).
    """
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return False if environ.get("CLICOLOR") == "0" or environ.get("TERM") == "dumb" else None
