"""A shared queue goes with its database, and nobody else's."""

import subprocess
import sys

import pytest

from flagsweep import ConfigError, FlagSweep


def test_a_queue_in_the_sites_own_database_or_beside_one_in_memory_is_refused(db_path):
    with pytest.raises(ConfigError, match="the queue needs a file of its own"):
        FlagSweep(db_path, queue=f"sqlite:///{db_path}")
    with pytest.raises(ConfigError, match="a database in memory"):
        FlagSweep(":memory:", queue=f"sqlite:///{db_path}")


@pytest.mark.long
def test_the_queue_in_memory_loads_nothing_of_a_shared_one(db_path, env):
    code = (
        "import sys, flagsweep; flags = flagsweep.FlagSweep(sys.argv[1]); flags.init(); flags.handler('work')(lambda: None)\n"
        "flags.handlers['work'].raise_flag(); flags.sweep()\n"
        "assert not [name for name in sys.modules if name.startswith('flagsweep.queues')]"
    )
    subprocess.run([sys.executable, "-c", code, str(db_path)], env=env, check=True, timeout=30)


def test_two_databases_have_queues_of_different_names_and_one_by_two_names_has_one(tmp_path):
    names = []
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    for file in ("a.db", "b.db", "link.db"):
        flags = FlagSweep(tmp_path / file, queue=f"sqlite:///{tmp_path}/queue.db")
        if file != "link.db":
            flags.init()
        names.append(flags.queue.place.name())
    assert names[0] != names[1] and names[0] == names[2]
