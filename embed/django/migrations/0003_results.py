"""Version 3: what handlers return."""

from django.db import migrations

from ..tables import Step, forget_nothing


class Migration(migrations.Migration):
    dependencies = [("flagsweep", "0002_schedules")]  # noqa: RUF012
    operations = [migrations.RunPython(Step(3), forget_nothing)]  # noqa: RUF012
