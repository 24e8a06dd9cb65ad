"""The commands on the pages, given in order in an empty folder, print what the pages show.

`make docs` writes what they print now.
"""

import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest

from docs.console import PAGES, Answer, Command, all_commands, normalised, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Command, Answer]]:
    """Every command of every page with what it printed, all from one run."""
    told = all_commands()
    folder = tmp_path_factory.mktemp("docs").resolve()
    return list(zip(told, run(told, folder, Path(sysconfig.get_path("scripts"))), strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_shows(
    answered: list[tuple[Command, Answer]], page: str
) -> None:
    of_page = [pair for pair in answered if pair[0].page == page]
    assert of_page, f"{page} has no block marked console"
    shown = [line for one, _ in of_page for line in (f"$ {one.text}", *normalised(one.shown))]
    printed = [line for one, it in of_page for line in (f"$ {one.text}", *normalised(it.printed))]
    assert shown == printed, f"{page} is out of date: make docs"


def test_a_command_that_fails_says_so_on_the_page(answered: list[tuple[Command, Answer]]) -> None:
    failing = [
        f"{one.page}:{one.line}: {one.text} ended with {answer.status}"
        for (one, answer), (after, _) in pairwise(answered)
        if answer.status != 0 and after.text != "echo $?"
    ]
    assert failing == []
