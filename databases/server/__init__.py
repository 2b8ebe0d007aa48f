"""What PostgreSQL, MySQL and MariaDB have in common: how one is reached, statements, transactions, locks of a session."""

from .dialect import Server as Server
