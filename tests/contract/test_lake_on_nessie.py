"""Beyond the contract, on a real Nessie: writers that know nothing of us, answers that are lost,
a server that is killed, and who may ask."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from itertools import count
from threading import Barrier
from urllib.parse import urlsplit

import pytest
from pyiceberg.catalog import Catalog, load_catalog

from lakewarden.aws.clients import Connection
from lakewarden.checkup import Answer
from lakewarden.lake.model import (
    MAIN,
    BaseMoved,
    Branch,
    BranchNameTaken,
    CatalogFormatUnknown,
    CatalogUnavailable,
    Publication,
    RunFenced,
    TakenOver,
)
from lakewarden.lake.nessie import NessieLake
from lakewarden.lake.nessie_api import CatalogDenied, CatalogRefused, KeyMoved, NessieApi
from lakewarden.lake.nessie_check import check_nessie
from lakewarden.lake.nessie_history import PublicationUnreadable
from lakewarden.lake.nessie_keys import ROOT
from lakewarden.lake.nessie_model import NO_ANCESTOR, Put, Reference, namespace
from tests.contract.conftest import Place
from tests.contract.test_lake import SCHEMA, at, numbers, one, publish, rows, touch
from tests.faults import FINE, Fault, FaultyProxy, Request, faulty_proxy
from tests.nessie import Nessie, prepared, token_of
from tests.stack import LocalStack

pytestmark = pytest.mark.parametrize("new_place", ["nessie"], indirect=True)


@pytest.fixture
def lake(place: Place) -> NessieLake:
    return place.open_nessie(place.uri)


@pytest.fixture
def stranger(place: Place) -> Catalog:
    """Somebody's own program on main: plain PyIceberg, set up as its pages say."""
    return plain_catalog(place)


def plain_catalog(place: Place) -> Catalog:
    store = place.store
    assert isinstance(store, Connection)
    return load_catalog(
        "theirs",
        **{
            "type": "rest",
            "uri": f"{place.uri}/iceberg/main",
            "warehouse": "lake",
            "s3.endpoint": store.endpoint or "",
            "s3.region": store.region,
            "s3.access-key-id": store.access_key or "",
            "s3.secret-access-key": store.secret_key or "",
        },
    )


def staged(lake: NessieLake, *tables: str, run: str = "1") -> Branch:
    branch = lake.begin(f"batch/{run}", run, at())
    touch(lake.catalog(branch), *tables)
    return branch


def before_commits(
    lake: NessieLake, monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], object]
) -> None:
    """Each happens at the worst moment: main has been looked at, and the commit is on its way."""
    commit, left = lake._api.commit, list(acts)

    def late(branch: Reference, operations: Sequence[Put], **more: object) -> str:
        if branch.name == MAIN and left:
            left.pop(0)()
        return commit(branch, operations, **more)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(lake._api, "commit", late)


def references(place: Place) -> set[str]:
    return {reference.name for reference in NessieApi(place.uri, None).references()}


# --- strangers ------------------------------------------------------------------------------------


def move(catalog: Catalog) -> None:
    touch(catalog, "raw.a")


def drop(catalog: Catalog) -> None:
    catalog.drop_table("raw.a")


def make_again(catalog: Catalog) -> None:
    catalog.drop_table("raw.a")
    catalog.create_table("raw.a", SCHEMA)


@pytest.mark.parametrize("act", [move, drop, make_again])
@pytest.mark.parametrize("reads", [frozenset[str](), frozenset({"raw.a"})], ids=["wrote", "read"])
@pytest.mark.parametrize("worst", [False, True], ids=["early", "late"])
def test_what_a_stranger_does_to_a_table_that_was_used_is_seen(
    lake: NessieLake,
    stranger: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Catalog], None],
    reads: frozenset[str],
    worst: bool,
) -> None:
    publish(lake, "0", "raw.a", "raw.b")
    branch = staged(lake, "raw.b" if reads else "raw.a")
    if worst:
        before_commits(lake, monkeypatch, lambda: act(stranger))
    else:
        act(stranger)
    with pytest.raises(BaseMoved) as caught:
        lake.publish(branch, one(), reads=reads, at=at())
    assert caught.value.tables == ("raw.a",)
    assert lake.outcome("1") is None
    assert len(lake.publications()) == 1
    assert stranger.table_exists("raw.a") is (act is not drop)


def test_a_table_that_a_stranger_makes_first_is_theirs(
    lake: NessieLake, stranger: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(lake, "0", "raw.a")
    branch = staged(lake, "raw.new", "raw.a")

    def make() -> None:
        stranger.create_table("raw.new", SCHEMA).append(rows(7))

    before_commits(lake, monkeypatch, make)
    with pytest.raises(BaseMoved) as caught:
        lake.publish(branch, one(), reads=frozenset(), at=at())
    assert caught.value.tables == ("raw.new",)
    assert numbers(lake.load(lake.pin(), "raw.new")) == [7]


def test_what_a_stranger_does_elsewhere_is_kept_and_disturbs_nobody(
    lake: NessieLake, stranger: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(lake, "0", "raw.a", "raw.theirs")
    branch = staged(lake, "raw.a")
    before_commits(lake, monkeypatch, lambda: stranger.load_table("raw.theirs").append(rows(5)))
    done = lake.publish(branch, one(), reads={"raw.a"}, at=at())
    assert done.version == 2
    assert numbers(lake.load(lake.pin(), "raw.theirs")) == [5]
    # What a publication is about is its own; what main held then is told too.
    assert done.tables.keys() == {"raw.a"}
    assert lake.pin_at(2).tables == lake.pin().tables


def test_publishes_that_meet_at_the_last_moment_both_end_published(
    place: Place, lake: NessieLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the head's version is in common: nobody has to stage again."""
    publish(lake, "0", "raw.a", "raw.b", "raw.c")
    others = [place.open_nessie(place.uri) for _ in range(3)]
    branches = [
        staged(one, f"raw.{name}", run=name) for one, name in zip(others, "abc", strict=True)
    ]
    before_commits(
        others[0],
        monkeypatch,
        lambda: others[1].publish(branches[1], one("2013-01-02"), reads=frozenset(), at=at()),
        lambda: others[2].publish(branches[2], one("2013-01-03"), reads=frozenset(), at=at()),
    )
    done = others[0].publish(branches[0], one("2013-01-04"), reads=frozenset(), at=at())
    assert done.version == 4
    assert [each.version for each in lake.publications()] == [4, 3, 2, 1]
    assert [set(each.tables) for each in lake.publications()][:3] == [
        {"raw.a"},
        {"raw.c"},
        {"raw.b"},
    ]


def test_strangers_meet_our_records_as_namespaces_only(lake: NessieLake, stranger: Catalog) -> None:
    publish(lake, "1", "raw.a")
    lake.take_over("2", by="3", at=at())
    assert set(stranger.list_namespaces()) == {("raw",), ("_lakewarden",)}
    assert stranger.list_tables("_lakewarden") == []
    assert lake.pin().tables.keys() == {"raw.a"}


def test_views_and_namespaces_of_strangers_stay(lake: NessieLake, stranger: Catalog) -> None:
    publish(lake, "0", "raw.a")
    branch = staged(lake, "raw.a")
    lake.catalog(branch).update_namespace_properties("raw", updates={"ours": "1"})
    stranger.update_namespace_properties("raw", updates={"theirs": "1"})
    lake.publish(branch, one(), reads=frozenset(), at=at())
    found = stranger.load_namespace_properties("raw")
    assert (found["ours"], found["theirs"]) == ("1", "1")


def test_a_branch_of_somebody_else_is_not_ours(place: Place, lake: NessieLake) -> None:
    publish(lake, "0", "raw.a")
    api = NessieApi(place.uri, None)
    main = api.reference(MAIN)
    assert main
    api.create_branch("batch/theirs", main.hash)
    lake.discard("batch/theirs")
    with pytest.raises(BranchNameTaken):
        lake.begin("batch/theirs", "1", at())
    assert "batch/theirs" in references(place)
    assert list(lake.branches()) == []


def test_a_web_page_cannot_write(place: Place) -> None:
    """What a page may send without being asked first has no type of content, and its origin."""
    address = urlsplit(place.uri)
    connection = HTTPConnection(address.hostname or "", address.port)
    body = json.dumps({"type": "BRANCH", "name": "main", "hash": NO_ANCESTOR})
    headers = {"Origin": "http://page.example"}
    connection.request("POST", "/api/v2/trees?name=page&type=BRANCH", body, headers)
    assert connection.getresponse().status == 403
    connection.close()


def test_properties_that_only_look_like_a_publication_are_named(
    place: Place, lake: NessieLake
) -> None:
    publish(lake, "0", "raw.a")
    api = NessieApi(place.uri, None)
    main = api.reference(MAIN)
    assert main
    key = ("theirs",)
    found = api.commit(
        main,
        [Put(key, namespace(key, {}), None)],
        message="",
        author="them",
        properties={"lakewarden.version": ["9"], "lakewarden.run": ["x"]},
    )
    with pytest.raises(PublicationUnreadable, match=found):
        lake.publications()
    assert lake.outcome("0") is not None


def test_records_of_another_release_are_not_touched(place: Place, lake: NessieLake) -> None:
    api = NessieApi(place.uri, None)
    main = api.reference(MAIN)
    assert main
    put = Put(ROOT, namespace(ROOT, {"format": "99"}), None)
    api.commit(main, [put], message="", author="a newer one", properties={})
    for attempt in (
        lambda: lake.begin("batch/1", "1", at()),
        lambda: lake.take_over("1", by="2", at=at()),
    ):
        with pytest.raises(CatalogFormatUnknown, match="99"):
            attempt()


def test_what_a_nessie_says_of_itself(place: Place, lake: NessieLake) -> None:
    def asked(**changed: str) -> Answer:
        bucket = place.warehouse.split("/")[2]
        told = {"main": MAIN, "warehouse": "lake", "bucket": bucket, **changed}
        return check_nessie(place.uri, None, **told)  # type: ignore[arg-type]  # `writes` is none

    assert asked().told == "Nessie, version 0"
    publish(lake, "1", "raw.a")
    assert (asked().told, asked().missing) == ("Nessie, version 1", ())
    assert asked(main="trunk").missing == ("no branch trunk",)
    assert asked(warehouse="other").missing == ("no warehouse other",)
    assert "outside of the bucket mine" in asked(bucket="mine").missing[0]
    with pytest.raises(CatalogUnavailable):
        check_nessie("http://127.0.0.1:1", None, main=MAIN, warehouse="lake", bucket="mine")


# --- answers that are lost ------------------------------------------------------------------------


@pytest.fixture
def proxy(place: Place) -> Iterator[FaultyProxy]:
    with faulty_proxy(place.uri) as running:
        yield running


def commits_on(ref: str) -> Callable[[Request], bool]:
    path = f"/api/v2/trees/{ref}@"

    def is_one(request: Request) -> bool:
        return request.path.startswith(path) and "history/commit" in request.path

    return is_one


def fail(proxy: FaultyProxy, which: Callable[[Request], bool], *faults: Fault) -> None:
    """These happen to the next of such requests, one each."""
    left = list(faults)
    proxy.plan = lambda request: left.pop(0) if left and which(request) else FINE


LOST = {
    "before it was sent": Fault(reset=True),
    "after it was done": Fault(lose_answer=True),
    "answered by something in between": Fault(status=502, code="Bad gateway"),
}


@pytest.mark.parametrize("how", LOST)
def test_a_publish_whose_answer_is_lost_is_made_once(
    place: Place, lake: NessieLake, proxy: FaultyProxy, how: str
) -> None:
    publish(lake, "0", "raw.a")
    away = place.open_nessie(proxy.endpoint)
    branch = staged(away, "raw.a", "raw.b")
    fail(proxy, commits_on(MAIN), LOST[how])
    done = away.publish(branch, one(), reads=frozenset(), at=at())
    assert done.version == 2
    assert lake.publications()[0] == done == lake.outcome("1")
    assert len(lake.publications()) == 2
    assert lake.pin().tables["raw.b"] == done.tables["raw.b"].after
    assert list(lake.branches()) == []


def test_while_nobody_hears_of_a_publish_it_is_not_told_as_done(
    place: Place, lake: NessieLake, proxy: FaultyProxy
) -> None:
    away = place.open_nessie(proxy.endpoint)
    branch = staged(away, "raw.a")
    fail(proxy, commits_on(MAIN), *[Fault(reset=True)] * 9)
    with pytest.raises(CatalogUnavailable):
        away.publish(branch, one(), reads=frozenset(), at=at())
    assert lake.outcome("1") is None
    assert lake.pin().tables == {}
    proxy.always(FINE)
    assert away.publish(branch, one(), reads=frozenset(), at=at()).version == 1


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("takes_over", [False, True], ids=["publish", "take-over"])
def test_a_commit_that_arrives_late_is_not_a_second_one(
    lake: NessieLake, monkeypatch: pytest.MonkeyPatch, first: bool, takes_over: bool
) -> None:
    """The connection broke, and what was sent still lies somewhere on its way: it reaches Nessie
    just before, or just after, the same is tried again."""
    publish(lake, "0", "raw.a")
    branch = staged(lake, "raw.a")
    commit = lake._api.commit
    waiting: list[Callable[[], str]] = []
    lost: list[str] = []

    def late(where: Reference, operations: Sequence[Put], **more: object) -> str:
        def again() -> str:
            return commit(where, operations, **more)  # type: ignore[arg-type]  # passed on as it came

        if where.name != MAIN:
            return again()
        if not waiting:
            waiting.append(again)
            raise CatalogUnavailable("the connection broke")
        steps = [waiting[0], again] if first else [again, waiting[0]]
        answers: dict[Callable[[], str], str] = {}
        for step in steps:
            try:
                answers[step] = step()
            except KeyMoved:
                lost.append("first" if step is waiting[0] else "second")
        if again not in answers:
            raise KeyMoved("somebody was faster")
        return answers[again]

    monkeypatch.setattr(lake._api, "commit", late)
    if takes_over:
        taken = lake.take_over("1", by="2", at=at())
        assert taken == TakenOver("1", "2", at()) == lake.outcome("1")
        assert len(lake.publications()) == 1
    else:
        done = lake.publish(branch, one(), reads=frozenset(), at=at())
        assert done == lake.outcome("1")
        assert [each.version for each in lake.publications()] == [2, 1]
    assert lost == (["second"] if first else ["first"])


@pytest.mark.parametrize("how", LOST)
def test_a_take_over_whose_answer_is_lost_is_made_once(
    place: Place, lake: NessieLake, proxy: FaultyProxy, how: str
) -> None:
    branch = staged(lake, "raw.a")
    away = place.open_nessie(proxy.endpoint)
    fail(proxy, commits_on(MAIN), LOST[how])
    assert away.take_over("1", by="2", at=at(3)) == TakenOver("1", "2", at(3))
    with pytest.raises(RunFenced):
        lake.publish(branch, one(), reads=frozenset(), at=at())
    assert list(lake.branches()) == []


@pytest.mark.parametrize("how", LOST)
def test_a_begin_whose_answer_is_lost_uses_its_name_up_at_the_most(
    place: Place, lake: NessieLake, proxy: FaultyProxy, how: str
) -> None:
    away = place.open_nessie(proxy.endpoint)
    away.begin("batch/0", "0", at())
    fail(proxy, commits_on("lakewarden"), LOST[how])
    with pytest.raises(CatalogUnavailable):
        away.begin("batch/1", "1", at())
    away.begin("batch/1.2", "1", at())
    assert [one.name for one in lake.branches()] == ["batch/0", "batch/1.2"]
    lake.take_over("1", by="2", at=at())
    assert [one.name for one in lake.branches()] == ["batch/0"]
    assert references(place) == {MAIN, "lakewarden", "batch/0"}


def test_a_read_that_breaks_once_is_asked_again(place: Place, proxy: FaultyProxy) -> None:
    away = place.open_nessie(proxy.endpoint)
    publish(away, "0", "raw.a")
    proxy.fail(Fault(reset=True))
    assert away.pin().tables.keys() == {"raw.a"}
    proxy.fail(Fault(reset=True), method="POST")
    assert isinstance(away.outcome("0"), Publication)
    proxy.always(Fault(reset=True))
    with pytest.raises(CatalogUnavailable) as caught:
        away.pin()
    assert proxy.endpoint in caught.value.message


def test_a_branch_that_could_not_be_tidied_up_is_gone_all_the_same(
    place: Place, lake: NessieLake, proxy: FaultyProxy
) -> None:
    """As after a kill -9 between the commit and the tidying: the next run sweeps."""
    away = place.open_nessie(proxy.endpoint)
    branch = staged(away, "raw.a")
    proxy.plan = lambda request: Fault(reset=True) if request.method == "DELETE" else FINE
    assert away.publish(branch, one(), reads=frozenset(), at=at()).version == 1
    assert branch.name in references(place)
    assert list(lake.branches()) == []
    lake.begin("batch/2", "2", at())
    assert references(place) == {MAIN, "lakewarden", "batch/2"}


def test_what_writes_to_a_branch_tells_an_outage_as_everything_does(
    place: Place, proxy: FaultyProxy
) -> None:
    away = place.open_nessie(proxy.endpoint)
    catalog = away.catalog(away.begin("batch/1", "1", at()))
    touch(catalog, "raw.a")
    for fault in (Fault(reset=True), Fault(status=503, code="no")):
        proxy.always(fault)
        with pytest.raises(CatalogUnavailable):
            catalog.load_table("raw.a")
        proxy.always(FINE)
    assert catalog.load_table("raw.a").name() == ("raw", "a")


def test_what_is_no_nessie_is_told_apart_from_an_outage(place: Place, proxy: FaultyProxy) -> None:
    proxy.always(Fault(status=404, code="NoSuchPage"))
    with pytest.raises(CatalogRefused, match="not a Nessie"):
        place.open_nessie(proxy.endpoint).pin()


# --- races ----------------------------------------------------------------------------------------


def test_of_many_that_decide_a_run_one_does(place: Place) -> None:
    """Two branches of one run are published while two others take it over."""
    lakes = [place.open_nessie(place.uri) for _ in range(4)]
    publish(lakes[0], "start", "raw.a")
    published = 0
    with ThreadPoolExecutor(4) as pool:
        for number in range(8):
            run, start = f"race-{number}", Barrier(4)
            branches = [lakes[0].begin(f"batch/{run}/{n}", run, at()) for n in range(2)]
            for branch in branches:
                touch(lakes[0].catalog(branch), "raw.a")

            def decide(
                who: int, run: str = run, branches: list[Branch] = branches, start: Barrier = start
            ) -> Publication | TakenOver | None:
                start.wait()
                if who >= 2:
                    return lakes[who].take_over(run, by=f"{who}", at=at())
                try:
                    return lakes[who].publish(branches[who], one(), reads={"raw.a"}, at=at())
                except RunFenced:
                    return None

            answers = [answer for answer in pool.map(decide, range(4)) if answer]
            outcome = lakes[0].outcome(run)
            assert set(map(repr, answers)) == {repr(outcome)}
            published += isinstance(outcome, Publication)
    assert len(lakes[0].publications()) == published + 1
    assert lakes[0].publications()[0].version == published + 1


# --- a server of its own --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, local_stack: LocalStack) -> Iterator[Nessie]:
    """One that may be killed, and that asks for a token."""
    server = prepared(tmp_path_factory.mktemp("own"), local_stack, with_tokens=True)
    server.start()
    yield server
    server.kill()


def place_of(server: Nessie) -> Place:
    return Place("nessie", server.uri, server.warehouse, server.store)


def test_who_has_no_token_or_a_wrong_one_is_refused(own: Nessie, new_place: object) -> None:
    place, good = place_of(own), own.token()
    lake = place.open_nessie(place.uri, token=good)
    branch = lake.begin("batch/token", "token", at())
    touch(lake.catalog(branch), "raw.token")
    for wrong in (None, own.token(seconds=-3600), token_of(own.folder / "foreign"), "rubbish"):
        bad = place.open_nessie(place.uri, token=wrong)
        attempts: list[Callable[[], object]] = [
            bad.pin,
            partial(bad.begin, "batch/no", "no", at()),
            partial(bad.publish, branch, one(), reads=frozenset(), at=at()),
        ]
        for attempt in attempts:
            with pytest.raises(CatalogDenied) as caught:
                attempt()
            told = f"{caught.value!r} {caught.value.message} {caught.value.hint}"
            assert "token" in told
            assert wrong is None or wrong not in told
    done = lake.publish(branch, one(), reads=frozenset(), at=at())
    assert lake.pin().tables["raw.token"] == done.tables["raw.token"].after
    assert good not in repr(lake)


@pytest.mark.slow
def test_a_server_that_is_killed_loses_nothing_and_does_nothing_twice(
    own: Nessie, new_place: object
) -> None:
    place, good = place_of(own), own.token()

    def client() -> NessieLake:
        return place.open_nessie(place.uri, token=good)

    publish(client(), "start", "raw.counter")
    acknowledged: list[Publication] = []
    in_doubt: list[str] = []
    stop, runs = threading.Event(), count()

    def publish_on_and_on() -> None:
        lake = client()
        while not stop.is_set():
            run = f"run-{next(runs)}"
            try:
                branch = lake.begin(f"batch/{run}", run, at())
                touch(lake.catalog(branch), "raw.counter")
                in_doubt.append(run)
                acknowledged.append(lake.publish(branch, one(), reads=frozenset(), at=at()))
                in_doubt.remove(run)
            except CatalogUnavailable:
                stop.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(publish_on_and_on)
        try:
            for kill in range(1, 3):
                while len(acknowledged) < 3 * kill and not working.done():
                    stop.wait(0.01)
                own.kill()
                own.start()
        finally:
            stop.set()
        working.result()

    lake = client()
    found = {each.run: each for each in lake.publications()}
    assert len(found) == len(lake.publications())
    for each in acknowledged:
        assert found[each.run] == each == lake.outcome(each.run)
    ours = {run: each for run, each in found.items() if run.startswith("run-")}
    assert ours.keys() - {each.run for each in acknowledged} <= set(in_doubt)
    versions = [each.version for each in lake.publications()]
    assert versions == list(range(versions[0], 0, -1))
    # Every publication added one to the counter, and nothing else did.
    counter = lake.load(lake.pin(), "raw.counter")
    assert counter.properties["touched"] == str(len(ours) + 1)
    for run in in_doubt:
        lake.take_over(run, by="the end", at=at())
