"""The admin: flags, schedules and history to look at; dead flags to retry and to discard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db import transaction

from ...logs import headline
from .models import Flag, History, Schedule
from .settings import alias_of_settings, is_in_transaction

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _shown(field: str, title: str, order: str | None = None) -> Callable[[Any, Any], datetime | None]:
    """Return a column that shows microseconds as a time."""

    @admin.display(description=title, ordering=order or field)
    def shown(self: Any, row: Any) -> datetime | None:
        value = getattr(row, field)
        return None if value is None else EPOCH + timedelta(microseconds=value)

    return shown


class ReadOnly(admin.ModelAdmin):
    """Show rows that only flagsweep's verbs write."""

    show_full_result_count = False

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).using(alias_of_settings())


@admin.register(Flag)
class FlagAdmin(ReadOnly):
    """Flags, and what a person does to dead ones: who may change flags may retry and discard them."""

    due, raised, died = _shown("due_at", "due"), _shown("raised_at", "raised"), _shown("died_at", "died")
    list_display = ("id", "kind", "key", "state", "due", "attempts", "told")
    list_filter = ("state",)
    search_fields = ("kind", "key")
    actions = ("retry", "discard")
    fields = (
        *("id", "kind", "key", "payload", "state", "priority", "due", "raised", "attempts", "crashes", "cursor"),
        *("claimed_by", "died", "schedule", "error"),
    )
    readonly_fields = ("due", "raised", "died")

    @admin.display(description="error")
    def told(self, row: Any) -> str:
        """Show the line of the error that names it."""
        return headline(row.error) if row.error else ""

    def has_settle_permission(self, request: Any) -> bool:
        """Return whether somebody may retry and discard."""
        return bool(request.user.has_perm("flagsweep.change_flag"))

    @admin.action(description="Retry: dead flags wait again from scratch", permissions=["settle"])
    def retry(self, request: Any, queryset: Any) -> None:
        """Let dead flags wait again."""
        self._do(request, queryset, "retried", lambda flags, ids: flags.retry(id=ids))

    @admin.action(description="Discard: dead flags are dropped", permissions=["settle"])
    def discard(self, request: Any, queryset: Any) -> None:
        """Drop dead flags, with a line of history that names who did it."""
        reason = f"by {request.user.get_username()} in the admin"
        self._do(request, queryset, "discarded", lambda flags, ids: flags.discard(id=ids, reason=reason))

    def _do(self, request: Any, queryset: Any, done: str, verb: Callable[[Any, Sequence[int]], int]) -> None:
        """Do it over flagsweep's own connection: where the request holds a transaction, once that has ended."""
        ids, alias = list(queryset.values_list("id", flat=True)), alias_of_settings()
        if is_in_transaction(alias):
            transaction.on_commit(partial(_with_handlers, verb, ids), using=alias)
            self.message_user(request, f"{len(ids)} chosen: what of them is dead is {done} at the end of this request.")
            return
        count = _with_handlers(verb, ids)
        self.message_user(request, f"{count} of {len(ids)} {done}.", messages.SUCCESS if count else messages.WARNING)


def _with_handlers(verb: Callable[[Any, Sequence[int]], int], ids: Sequence[int]) -> int:
    """Do it knowing all handlers: the column of an own row comes down with its flag."""
    from .discovery import discovered

    return verb(discovered(), ids)


@admin.register(Schedule)
class ScheduleAdmin(ReadOnly):
    """Schedules."""

    next, last, paused = _shown("next_at", "next"), _shown("last_at", "last"), _shown("paused_at", "paused")
    list_display = ("name", "kind", "sort", "spec", "zone", "next", "last", "outcome", "paused")
    search_fields = ("name", "kind")
    fields = (
        *("name", "kind", "payload", "sort", "spec", "zone", "missed", "next", "last", "outcome", "origin", "changed_by"),
        *("paused", "paused_by", "reason"),
    )
    readonly_fields = ("next", "last", "paused")


@admin.register(History)
class HistoryAdmin(ReadOnly):
    """History."""

    when = _shown("at", "at")
    list_display = ("when", "event", "kind", "key", "attempt", "reason")
    list_filter = ("event",)
    search_fields = ("kind", "key")
    fields = ("when", "event", "flag", "kind", "key", "attempt", "took", "reason", "result")
    readonly_fields = ("when",)
