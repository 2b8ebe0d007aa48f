"""SQLite: how a file is opened, the text of every statement, what its errors mean, and the log beside the file."""

from .dialect import Sqlite as Sqlite
