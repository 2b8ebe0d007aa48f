"""Version 2: schedules, gates, counts, and what shapes a raise."""

from django.db import migrations

from ..tables import Step, forget_nothing


class Migration(migrations.Migration):
    dependencies = [("flagsweep", "0001_flags")]  # noqa: RUF012
    operations = [migrations.RunPython(Step(2), forget_nothing)]  # noqa: RUF012
