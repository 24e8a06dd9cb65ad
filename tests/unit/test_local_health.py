"""Whether SeaweedFS's master knows its volumes. The answers are its own, shortened."""

from lakewarden.local.health import are_known
from lakewarden.local.weed import read_volumes

HELD = {"DiskStatuses": [{"dir": "d"}], "Volumes": [{"Id": 7}]}
NONE_KNOWN = "Topology volumeSizeLimit:128 MB hdd(volume:0/8 active:0 free:8 remote:0)\n"
KNOWN = (
    f"{NONE_KNOWN}        Disk hdd(volume:2/8 active:2 free:6 remote:0) id:0\n"
    "          volume Id:7, Size:8, ReplicaPlacement:000, Collection:flights-dev, Version:3\n"
    "          volume Id:12, Size:0, ReplicaPlacement:000, Collection:, Version:3\n"
)


def test_every_volume_has_to_be_known_to_the_master() -> None:
    assert are_known(HELD, read_volumes(KNOWN))
    assert not are_known(HELD, read_volumes(NONE_KNOWN))


def test_a_server_without_volumes_has_nothing_to_make_known() -> None:
    assert are_known({"Volumes": None}, read_volumes(NONE_KNOWN))


def test_who_does_not_answer_knows_nothing() -> None:
    assert not are_known(HELD, None)
    assert not are_known(None, {7})
