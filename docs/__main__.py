"""make docs: write the generated pages, and what the commands on the others really print.

`make docs ARGS=pages` writes the generated ones only, at once."""

import sys
import sysconfig
import tempfile
from pathlib import Path

from docs.console import PAGES, ROOT, all_commands, refreshed, run
from docs.generated import GENERATED


def main() -> None:
    for name, page in GENERATED.items():
        _write(name, page())
    if sys.argv[1:] == ["pages"]:
        return
    told = all_commands()
    with tempfile.TemporaryDirectory() as outer:
        answers = run(told, Path(outer).resolve(), Path(sysconfig.get_path("scripts")))
    for name in PAGES:
        of_page = [pair for pair in zip(told, answers, strict=True) if pair[0].page == name]
        text = (ROOT / name).read_text("utf-8")
        commands, printed = [one for one, _ in of_page], [one for _, one in of_page]
        _write(name, refreshed(text, commands, printed))


def _write(name: str, text: str) -> None:
    path = ROOT / name
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")
        sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
