"""MySQL 8 and MariaDB 10.6, with PyMySQL: how one is reached, the text of every statement, what errors mean, locks."""

from .dialect import Mysql as Mysql
