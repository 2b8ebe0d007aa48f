"""Version 4: how flags died, who sweeps and when it last did, and small durable notes."""

from django.db import migrations

from ..tables import Step, forget_nothing


class Migration(migrations.Migration):
    dependencies = [("flagsweep", "0003_results")]  # noqa: RUF012
    operations = [migrations.RunPython(Step(4), forget_nothing)]  # noqa: RUF012
