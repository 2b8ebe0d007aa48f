"""The table of findings names each that there is, and no other."""

import re
from pathlib import Path

from flagsweep.operations.doctor import examine

ROOMS = Path(examine.__file__).parent
OF_SERVERS = {"PostgreSQL", "MySQL", "MariaDB"}
"""What a server calls itself."""


def test_the_document_names_each_finding():
    source = "".join(path.read_text() for path in ROOMS.glob("*.py"))
    made = set(re.findall(r'Finding\(\s*[^,()]+(?: if [^,()]+)?,\s*"([A-Za-z][^"]*)"', source)) | OF_SERVERS
    table = (ROOMS.parents[1] / "docs" / "doctor.md").read_text().partition("## The findings")[2].partition("## ")[0]
    named = [name for row in re.findall(r"^\| ([^|]+) \|", table, re.M)[1:] for name in row.split(", ")]
    assert sorted(named) == sorted(made)


def test_each_check_says_what_it_asks():
    lists = [getattr(examine, name) for name in dir(examine) if name.isupper()]
    checks = {check for each in lists for check in each}
    assert len(checks) > 30 and not [check.__name__ for check in checks if not (check.__doc__ or "").endswith((".", "\n    "))]
