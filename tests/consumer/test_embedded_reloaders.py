"""Embedded under the servers of development: the process that answers sweeps, also after its source has changed."""

import http.client
import sys
import textwrap
from contextlib import suppress

import pytest
from servers import free_port

from flagsweep import FlagSweep

FLASK = """
    import os
    from flask import Flask
    from flagsweep import FlagSweep

    flags = FlagSweep("sqlite:///site.db", mode="embedded")
    app = Flask(__name__)

    @flags.handler
    def work(n):
        with open("ledger", "a") as ledger:
            ledger.write(f"{n} {os.getpid()}\\n")

    @app.before_request
    def start():
        flags.start()

    @app.get("/<int:n>")
    def raise_one(n):
        work.raise_flag(n)
        return str(os.getpid())
"""

DJANGO = """
    import os, sys
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path
    from flagsweep import FlagSweep

    flags = FlagSweep("sqlite:///site.db", mode="embedded")

    @flags.handler
    def work(n):
        with open("ledger", "a") as ledger:
            ledger.write(f"{n} {os.getpid()}\\n")

    def raise_one(request, n):
        flags.start()
        work.raise_flag(n)
        return HttpResponse(str(os.getpid()))

    urlpatterns = [path("<int:n>", raise_one)]

    if __name__ == "__main__":
        settings.configure(DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="k")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
"""

RELOADERS = {
    "flask": (FLASK, lambda port: ["-m", "flask", "--app", "manage", "--debug", "run", "--port", port]),
    "runserver": (DJANGO, lambda port: ["manage.py", "runserver", f"127.0.0.1:{port}"]),
}


@pytest.mark.long
@pytest.mark.parametrize("server", RELOADERS)
def test_the_process_that_answers_sweeps_and_so_does_the_one_that_takes_its_place(server, spawn, tmp_path, until):
    text, command = RELOADERS[server]
    source, ledger = tmp_path / "manage.py", tmp_path / "ledger"
    source.write_text(textwrap.dedent(text))
    ledger.touch()
    flags = FlagSweep(tmp_path / "site.db")
    flags.init()
    flags.connections.close_thread()
    port = free_port()
    child = spawn(sys.executable, *command(port))

    def answered(n):
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", f"/{n}")
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else None

    first = until(lambda: answered(1), 60)
    until(lambda: f"1 {first}\n" in ledger.read_text(), 30)
    assert first != str(child.pid), "the process that looks for changes sweeps nothing"
    source.write_text(source.read_text() + "\n# changed\n")
    second = until(lambda: (pid := answered(2)) != first and pid, 60)
    until(lambda: f"2 {second}\n" in ledger.read_text(), 30)
    child.terminate()
    child.wait(30)
