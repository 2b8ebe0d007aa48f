"""The app: its checks, what a migrated SQLite file needs, and the embedded consumer of a serving process."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register
from django.core.signals import request_started
from django.db.models.signals import post_migrate


class FlagSweepConfig(AppConfig):
    """Take flagsweep into a Django site."""

    name = "flagsweep.embed.django"
    label = "flagsweep"
    verbose_name = "flagsweep"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .checks import check
        from .serving import start_when_serving
        from .tables import keep_a_log

        register(check, "flagsweep")
        post_migrate.connect(keep_a_log, sender=self)
        request_started.connect(start_when_serving, dispatch_uid="flagsweep")
