"""The keys: made once and for their owner alone, and refused where they protect nothing."""

import threading

import pytest
from queue_rig import KEY

from flagsweep import ConfigError
from flagsweep.queues.keys import read_keys

KEYS = [b"the key that signs", b"the key before it"]


def test_the_key_beside_a_sqlite_queue_is_made_once_and_for_its_owner_alone(tmp_path):
    queue = tmp_path / "queue.db"
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_keys((), queue))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4 and all(keys == found[0] for keys in found) and len(found[0][0]) >= 32
    assert (tmp_path / "queue.db-key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["queue.db-key"]


def test_no_key_is_made_where_everybody_can_write(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody can write into"):
        read_keys((), tmp_path / "queue.db")
    assert read_keys([KEY], tmp_path / "queue.db") == [KEY.encode()]


def test_a_file_of_keys_has_one_on_each_line(tmp_path):
    file = tmp_path / "key"
    file.write_text("the key that signs\n\nthe key before it\n")
    file.chmod(0o640)
    assert read_keys([f"file:{file}"], None) == KEYS
    assert read_keys([f"file:{file}", "and a third key, as text"], None) == [*KEYS, b"and a third key, as text"]


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        ("long enough to be a key", 0o644, "chmod 600"),
        ("long enough to be a key", 0o620, "chmod 600"),
        ("short", 0o600, "16"),
        ("", 0o600, "16"),
    ],
)
def test_a_file_of_keys_that_protects_nothing_is_refused(tmp_path, content, mode, told):
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=told) as caught:
        read_keys([f"file:{file}"], None)
    assert "long enough" not in str(caught.value)


def test_a_consumer_without_its_key_does_not_start(make, tmp_path):
    work = make(f"sqlite:///{tmp_path}/queue.db", queue_key=f"file:{tmp_path}/gone")
    with pytest.raises(ConfigError, match=r"the queue's key .*/gone cannot be read"):
        work.flags.run()
