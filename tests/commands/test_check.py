"""``flagsweep check``: one line and an exit code."""

import json

from calling import flagsweep
from rig import plain


def test_check_says_it_in_one_line_with_the_exit_code_of_nagios(shop):
    result = flagsweep("check", code=2)
    (line,) = result.stdout.splitlines()
    assert line.startswith("FLAGSWEEP CRITICAL - no consumer runs (start 'flagsweep run'); nothing is due")
    assert flagsweep("check", "--no-consumer").stdout == "FLAGSWEEP OK - nothing is due; none died for 24 h\n"


def test_check_prints_json_with_the_same_exit_code(shop):
    told = json.loads(flagsweep("check", "--json", code=2).stdout)
    assert (told["level"], told["code"]) == ("critical", 2)
    assert [point["name"] for point in told["points"]] == ["consumer", "due", "dead"]


def test_dead_flags_are_a_warning_for_as_long_as_one_asks(shop):
    shop.send.raise_flag(1, how="fail")
    shop.flags.sweep()
    plain(shop.flags.path, "UPDATE flagsweep_flag SET state = 'dead', died_at = ?", shop.flags.clock.now())
    result = flagsweep("check", "--no-consumer", code=1)
    assert result.stdout.startswith("FLAGSWEEP WARNING - 1 died within 24 h: send ('flagsweep dead')")
    flagsweep("check", "--no-consumer", "--dead-since", "0")


def test_what_cannot_be_asked_is_unknown_and_no_outage(folder, shop):
    assert flagsweep("--app", "shop:nothing", "check", code=3).stdout.startswith("FLAGSWEEP UNKNOWN - ")
    flagsweep("check", "--dead-since", "lately", code=3)
    flagsweep("check", "--sadly", code=3)
