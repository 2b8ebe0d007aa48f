"""The fingerprint of a failure: by which failures are told to be alike, without a word of their message."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from types import FrameType, TracebackType

from ..logs import printable

LIMIT = 200
"""Characters of a fingerprint."""

_OURS = f"{__package__.partition('.')[0]}."
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]")
_MOST_OF_A_NAME = 60


def fingerprint(error: BaseException) -> str:
    """Return the exception's type and the innermost line of the site's code, as ``"socket.gaierror mail.py:send:12"``.

    The site's code is what is neither installed as a package, nor Python's own, nor flagsweep. Without one it is the innermost
    line of a library, and where there is no traceback only the type. Of a group of exceptions it is the first that is no group.
    The error behind it (``raise ... from``) tells nothing.
    """
    trace = error.__traceback__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        trace = error.__traceback__ or trace
    where = _where(trace)
    return _type(type(error), LIMIT - len(where)) + where


def _type(kind: type[BaseException], limit: int) -> str:
    """Return the qualified name of a type; whatever the site has made of ``__module__``, this does not raise."""
    try:
        module, name = kind.__module__, kind.__qualname__
    except Exception:
        module, name = None, type.__dict__["__name__"].__get__(kind)
    text = name if module == "builtins" or not isinstance(module, str) else f"{module}.{name}"
    return printable(text)[-limit:]


def _where(trace: TracebackType | None) -> str:
    """Return the innermost line that tells, with a space before it; nothing where there is no traceback."""
    site = library = None
    for frame, line in _frames(trace):
        if _is_library(frame.f_code.co_filename):
            library = (frame, line)
        elif not _is_ours(frame):
            site = (frame, line)
    told = site or library
    if told is None:
        return ""
    code = told[0].f_code
    file = printable(os.path.basename(code.co_filename))[-_MOST_OF_A_NAME:]
    return f" {file}:{printable(code.co_name)[-_MOST_OF_A_NAME:]}:{told[1]}"


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_OURS)


@lru_cache(maxsize=1024)
def _is_library(file: str) -> bool:
    """Return whether a file is an installed package's or Python's own. What no file has was made by a library (``<string>``)."""
    return file.startswith(("<", os.path.dirname(os.__file__) + os.sep)) or _INSTALLED.search(file) is not None
