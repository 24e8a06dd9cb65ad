"""Whether SeaweedFS's master knows its volumes. The answers are its own, shortened."""

from lakewarden.local.health import are_known

HELD = {"DiskStatuses": [{"dir": "d"}], "Volumes": [{"Id": 7}]}
NONE_KNOWN = {"Volumes": {"DataCenters": {}, "Free": 0, "Max": 0}}
RACKS = {"DefaultRack": {"127.0.0.1:2": [{"Id": 7, "Ttl": {"Count": 0}}, {"Id": 8}]}}
KNOWN = {"Volumes": {"DataCenters": {"DefaultDataCenter": RACKS}, "Free": 535}}


def test_every_volume_has_to_be_known_to_the_master() -> None:
    assert are_known(HELD, KNOWN)
    assert not are_known(HELD, NONE_KNOWN)


def test_who_does_not_answer_knows_nothing() -> None:
    assert not are_known(HELD, None)
    assert not are_known(None, KNOWN)
