"""The runner's image, as far as its text tells: no Docker builds it here."""

import re
from pathlib import Path

from lakewarden.aws.definitions import names, runner_task

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "infra" / "docker" / "Dockerfile").read_text("utf-8")


def instructions() -> list[tuple[str, str]]:
    """Each with its argument; lines that go on are one."""
    joined = re.sub(r"\\\n\s*", "", TEXT)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def of(kind: str) -> list[str]:
    return [argument for name, argument in instructions() if name == kind]


def test_every_base_is_pinned_by_digest() -> None:
    assert len(of("FROM")) == 2
    for base in of("FROM"):
        assert re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}( AS \w+)?", base)


def test_it_does_not_run_as_root() -> None:
    (user,) = of("USER")
    assert user == "10001:10001"
    last = [name for name, _ in instructions()]
    assert last.index("USER") > max(n for n, name in enumerate(last) if name in ("RUN", "COPY"))


def test_it_runs_what_the_task_definition_runs() -> None:
    (command,) = of("CMD")
    task = runner_task(names("dpc", "prod"), "image", "us-east-1", {})
    assert command == str(task["containerDefinitions"][0]["command"]).replace("'", '"')
    assert of("ENTRYPOINT") == []  # no shell, and nothing that would keep signals


def test_what_is_copied_is_there_and_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for argument in of("COPY"):
        if argument.startswith("--from"):
            continue
        for source in argument.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in [line.rstrip("/") for line in ignored], source


def test_packages_come_by_their_hashes_and_nothing_of_the_workshop_comes() -> None:
    installs = [part for run in of("RUN") for part in run.split("&&") if " install " in part]
    assert len(installs) == 4  # of build's, of the runtime's, of our wheel; and a folder
    for each in installs:
        if "-r " in each:
            assert "--require-hashes --no-deps" in each
    assert "dev.txt" not in TEXT
    assert "demo" not in TEXT


def test_nothing_secret_is_in_it() -> None:
    assert of("ARG") == []
    for argument in of("ENV"):
        assert not re.search(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY", argument)
