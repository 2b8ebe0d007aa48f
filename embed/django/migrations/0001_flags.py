"""Version 1 of our tables; and models to look at them, of which migrations need to know no more than that they are there."""

from django.db import migrations, models

from ..tables import Step, forget_nothing


def _shown(name, key, **options):
    return migrations.CreateModel(
        name=name,
        fields=[key],
        options={"db_table": f"flagsweep_{name.lower()}", "managed": False, **options},
    )


def _id():
    return "id", models.BigIntegerField(primary_key=True, serialize=False)


class Migration(migrations.Migration):
    initial = True
    dependencies: list = []  # noqa: RUF012
    operations = [  # noqa: RUF012
        migrations.RunPython(Step(1), forget_nothing),
        _shown("Flag", _id(), ordering=("-id",)),
        _shown("Schedule", ("name", models.TextField(primary_key=True, serialize=False)), ordering=("name",)),
        _shown("History", _id(), ordering=("-id",), verbose_name_plural="history"),
    ]
