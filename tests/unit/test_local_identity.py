"""The local stack's keys, and its command line."""

import json
import stat
from pathlib import Path

from lakewarden.local.identity import keys
from lakewarden.local.layout import Layout, write_private
from lakewarden.local.ports import Ports
from lakewarden.local.weed import command, environment


def test_keys_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    made = keys(layout)
    assert keys(layout) == made
    assert made.secret_key not in repr(made)
    assert len(made.secret_key) >= 32
    assert stat.S_IMODE(layout.identities.stat().st_mode) == 0o600
    [identity] = json.loads(layout.identities.read_text())["identities"]
    assert identity["credentials"] == [
        {"accessKey": key, "secretKey": made.secret_key}
        for key in (made.access_key, "000000000000")  # with the second, Lambda functions sign
    ]


def test_a_stack_that_had_one_key_gets_the_other(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    made = keys(layout)
    content = json.loads(layout.identities.read_text())
    del content["identities"][0]["credentials"][1]
    reader = {"accessKey": "READER", "secretKey": "of somebody who may look"}
    others = {"name": "reader", "credentials": [reader], "actions": ["Read"]}
    layout.identities.write_text(json.dumps({"identities": [*content["identities"], others]}))
    assert keys(layout) == made
    ours, theirs = json.loads(layout.identities.read_text())["identities"]
    assert len(ours["credentials"]) == 2
    assert theirs == others


def test_two_projects_have_different_keys(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        layout = Layout(tmp_path / name)
        layout.make()
        found.append(keys(layout))
    assert found[0].access_key != found[1].access_key
    assert found[0].secret_key != found[1].secret_key


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_line_stays_on_this_machine_and_sends_nothing_home(tmp_path: Path) -> None:
    argv = command(Path("/bin/weed"), Ports(1, 2, 3, 4, 5))
    for expected in ("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"):
        assert expected in argv
    assert not any(str(tmp_path) in word for word in argv)
    first, second = environment(Layout(tmp_path)), environment(Layout(tmp_path))
    own = {name for name in first if name.startswith("WEED_")}
    assert first.keys() - own == {"HOME", "PATH", "TMPDIR"}
    assert len({first[name] for name in own} | {second[name] for name in own}) == 2 * len(own) > 0
