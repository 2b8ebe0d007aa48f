"""A terminal for tests: a real pseudo-terminal with a process in it, and what then stands on its screen."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios

import pyte


class Terminal:
    """Run a command as the leader of a terminal of its own; ``lines`` is what a person would see there."""

    def __init__(self, command, cwd, env, columns=80, rows=24):
        self._stream = pyte.ByteStream()
        self._screen = pyte.Screen(columns, rows)
        self._stream.attach(self._screen)
        self.sent = b""
        self.code = None
        env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}  # They win over its size.
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                os.chdir(cwd)
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execvpe(command[0], [str(word) for word in command], {"TERM": "xterm", **env})
            finally:
                os._exit(127)

    @property
    def lines(self):
        """What stands on the screen now."""
        self.read()
        return [line.rstrip() for line in self._screen.display]

    def read(self):
        """Take what has been written, as a terminal does."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # The end of a terminal, on Linux.
                break
            if not data:
                break
            self.sent += data
            self._stream.feed(data)

    @property
    def text(self):
        return "\n".join(self.lines)

    def type(self, text):
        os.write(self.fd, text.encode())

    def resize(self, columns, rows=24):
        self.read()
        self._screen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self):
        """Return how the terminal treats what is typed."""
        return termios.tcgetattr(self.fd)[3]

    def is_given_back(self):
        """Return whether the screen is the usual one, with its cursor, and keys echo, line by line."""
        sent = (self.lines, self.sent)[1]
        main = sent.rfind(b"\x1b[?1049l") > sent.rfind(b"\x1b[?1049h")
        cursor = sent.rfind(b"\x1b[?25h") > sent.rfind(b"\x1b[?25l")
        return main and cursor and bool(self.modes() & termios.ECHO and self.modes() & termios.ICANON)

    def has_ended(self):
        """Return whether the process has; its code is ``code``."""
        self.read()
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def close(self):
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
