"""Models to look at: the tables are flagsweep's own, and only its verbs write them."""

from __future__ import annotations

from typing import Any

from django.db import models


class Text(models.TextField):
    """Read as text what MySQL keeps as bytes, so that 'A' is not 'a' there."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


class Flag(models.Model):
    """A flag: work that is owed. Times are microseconds UTC."""

    id = models.BigIntegerField(primary_key=True)
    kind = Text()
    key = Text()
    payload = Text()
    state = Text()
    priority = models.SmallIntegerField()
    due_at = models.BigIntegerField()
    raised_at = models.BigIntegerField()
    attempts = models.IntegerField()
    crashes = models.IntegerField()
    cursor = Text(null=True)
    error = Text(null=True)
    died_at = models.BigIntegerField(null=True)
    claimed_by = models.BigIntegerField(null=True)
    claimed_at = models.BigIntegerField(null=True)
    expires_at = models.BigIntegerField(null=True)
    schedule = Text(null=True)

    class Meta:
        managed = False
        db_table = "flagsweep_flag"
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Schedule(models.Model):
    """A schedule: when flags of a kind are raised. Times are microseconds UTC."""

    name = Text(primary_key=True)
    kind = Text()
    payload = Text()
    sort = Text()
    spec = Text()
    zone = Text()
    missed = Text()
    next_at = models.BigIntegerField(null=True)
    last_at = models.BigIntegerField(null=True)
    outcome = Text(null=True)
    ended_at = models.BigIntegerField(null=True)
    origin = Text()
    changed_by = Text(null=True)
    paused_at = models.BigIntegerField(null=True)
    paused_by = Text(null=True)
    reason = Text(null=True)

    class Meta:
        managed = False
        db_table = "flagsweep_schedule"
        ordering = ("name",)

    def __str__(self) -> str:
        return str(self.name)


class History(models.Model):
    """A line of history: what became of an attempt, or of a flag. Times are microseconds UTC."""

    id = models.BigIntegerField(primary_key=True)
    at = models.BigIntegerField()
    flag = models.BigIntegerField()
    kind = Text()
    key = Text()
    event = Text()
    reason = Text()
    attempt = models.IntegerField(null=True)
    took = models.BigIntegerField(null=True)
    consumer = models.BigIntegerField(null=True)
    result = Text(null=True)

    class Meta:
        managed = False
        db_table = "flagsweep_history"
        ordering = ("-id",)
        verbose_name_plural = "history"

    def __str__(self) -> str:
        return f"{self.event}: {self.kind} {self.key}"
