"""PostgreSQL 13 and newer, with psycopg 3: how one is reached, the text of every statement, errors, locks, notifications."""

from .dialect import Postgresql as Postgresql
