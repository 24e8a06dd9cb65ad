"""What the pages say, against the code that they say it of."""

import ast
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest

from docs import commands_page, errors_page, settings_page
from docs.generated import GENERATED
from lakewarden.batch.delivery.keys import Landing
from lakewarden.batch.delivery.manifest_read import parse
from lakewarden.batch.parsing import casts
from lakewarden.batch.receipts import Receipt, parse_receipt
from lakewarden.settings import Settings, load_settings
from lakewarden.tables.template_file import read_templates

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("src/lakewarden/examples/*/README.md")),
]
FILES = (ROOT / "docs" / "files.md").read_text("utf-8")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", FILES, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", GENERATED)
def test_a_generated_page_is_what_the_code_says(page: str) -> None:
    """`make docs` mends it."""
    assert (ROOT / page).read_text("utf-8") == GENERATED[page]()


# ── links ───────────────────────────────────────────────────────────────────────────────────────


def anchors(page: Path) -> set[str]:
    """Of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def links(page: Path) -> list[tuple[Path, str]]:
    found = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8"))
    return [((page.parent / to).resolve() if to else page, anchor) for to, anchor in found]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [
        f"{to.name}#{anchor}"
        for to, anchor in links(page)
        if not to.exists() or (anchor and anchor not in anchors(to))
    ]
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting.extend(to for to, _ in links(page))
    assert {name(page) for page in PAGES} - {name(page) for page in reached} == set()


def test_pages_that_the_program_names_are_there() -> None:
    named = {
        match
        for path in (ROOT / "src").rglob("*.py")
        for match in re.findall(r"docs/[\w/-]+\.md", path.read_text("utf-8"))
    }
    assert "docs/settings.md" in named
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []


def test_a_decision_fits_on_a_page() -> None:
    decisions = {path: path.read_text("utf-8") for path in ROOT.glob("docs/decisions/*.md")}
    assert decisions
    assert [name(path) for path, text in decisions.items() if len(text.splitlines()) >= 40] == []


# ── commands ────────────────────────────────────────────────────────────────────────────────────


def test_commands_that_pages_name_exist() -> None:
    known = {" ".join(path) for path in commands_page.paths()}
    groups = {one.rpartition(" ")[0] for one in known}
    told = re.compile(r"\blakewarden ((?:local|table|batch|quarantine|lake) [a-z]+|[a-z]+)")
    unknown = []
    for page in PAGES:
        text = page.read_text("utf-8")
        code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^(?:\$ | {4})(.+)$", text, re.M)
        for line in code:
            for command in told.findall(line):
                if f"lakewarden {command}" not in known | groups:
                    unknown.append(f"{name(page)}: lakewarden {command}")
    assert unknown == []


@pytest.mark.parametrize("path", commands_page.paths(), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    told = commands_page.help_of(path)
    assert f"Example: {' '.join(path)}" in told


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def test_every_error_says_what_it_is_and_one_code_is_of_one_kind() -> None:
    exit_codes: dict[str, set[int]] = {}
    for error in errors_page.errors():
        assert inspect.getdoc(error) and error.__doc__, f"{error.__qualname__} has no docstring"
        exit_codes.setdefault(error.code, set()).add(error.exit_code)
    assert {code: kinds for code, kinds in exit_codes.items() if len(kinds) > 1} == {}


# ── reasons of the quarantine ───────────────────────────────────────────────────────────────────


def reasons() -> set[str]:
    """What Check(…, reason, …) and Flaw(reason, …) say in the source."""
    place = {"Check": 2, "Flaw": 0}
    calls = [
        (node.func.id, node.args)
        for path in (ROOT / "src" / "lakewarden" / "batch" / "parsing").glob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    told = [arguments[place[name]] for name, arguments in calls if name in place]
    return {str(one.value) for one in told if isinstance(one, ast.Constant)}


def test_every_reason_of_the_quarantine_is_told() -> None:
    section = (ROOT / "docs" / "batch.md").read_text("utf-8").partition("| reason |")[2]
    table = section.partition("\n\n")[0]
    told = {code for row in table.splitlines() for code in re.findall("`([a-z-]+)`", row[:60])}
    found = reasons()
    assert {"type", "columns"} <= found
    assert told == found


# ── settings ────────────────────────────────────────────────────────────────────────────────────

SAMPLES = {
    "role_arn": "arn:aws:iam::123456789012:role/runner",
    "account": "123456789012",
    "at": "07:30",
    "grace": "90m",
    "zone": "Asia/Tokyo",
    "uri": "sqlite:///other.db",
    "batch": "month",
    "complete": "settled:15m",
    "after": "2",
    "first": "2024-01-31",
    "max_share": "0.5",
    "max_bytes": "4711",
    "memory_limit": "2GB",
    "threads": "3",
    "part_mib": "16",
    "running": "True",
    "prefix": "parquet/",
    "restricted": "True",
}


@pytest.mark.parametrize("key", list(settings_page.keys(Settings)), ids=lambda key: str(key.path))
def test_a_variable_overrides_its_key(
    key: settings_page.Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lakewarden.toml").write_text(blocks("toml")[0], "utf-8")
    if key.variable is None:
        several = ("parts", "tables", "weekdays", "holidays", "key_prefix", "names")
        assert key.path.rpartition(".")[2] in several or key.path == "dagster.first"
        return
    names = {"env": "dev", "dataset": "claims"}
    kind = key.path.partition("[")[2].partition("]")[0]  # of the catalog
    if kind:
        monkeypatch.setenv("LAKEWARDEN__ENV__DEV__CATALOG__TYPE", kind)
    first, *rest = key.path.replace(f"[{kind}]", "").split(".")
    path = [first, *(names[first] if part == "NAME" else part for part in rest)]
    value = kind if path[-1] == "type" else SAMPLES.get(path[-1], "other")
    if path[-1] in ("profile", "role_arn"):  # the local stack takes none
        monkeypatch.setenv("LAKEWARDEN__ENV__DEV__ACCOUNT", SAMPLES["account"])
    monkeypatch.setenv(key.variable.replace("NAME", names.get(first, "").upper(), 1), value)
    found: object = load_settings(tmp_path)
    for part in path:
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    secret = getattr(found, "get_secret_value", None)
    assert str(secret() if secret else found) == value


# ── files ───────────────────────────────────────────────────────────────────────────────────────


def test_the_settings_shown_are_valid_and_name_every_key_of_a_dataset(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "lakewarden.toml").write_text(text, "utf-8")
    load_settings(tmp_path)
    shown = tomllib.loads(text)["dataset"]
    keys = {key for dataset in shown.values() for key in dataset}
    described = {
        key.path.split(".")[2] for key in settings_page.keys(Settings, "") if "data" in key.path
    }
    assert keys == described


def test_the_template_shown_is_valid(tmp_path: Path) -> None:
    template, model = blocks("yaml")
    (tmp_path / "payments.yaml").write_text(template, "utf-8")
    assert list(read_templates(tmp_path)) == ["raw.payments"]
    assert "meta: {lake:" in model


def test_the_manifests_shown_are_read() -> None:
    landing = Landing("flights-dev", "raw/flights/2013-01-01/", "flights", "2013-01-01")
    file = "flights_2013-01-01.csv"
    for text in blocks("json")[:3]:
        manifest = parse(text.encode(), landing, file="_manifest.json", covers=file)
        assert [entry.name for entry in manifest.entries] == [file]


def test_the_receipt_shown_is_one_and_every_field_is_described() -> None:
    receipt = parse_receipt(json.loads(blocks("json")[3]), key="shown")
    assert receipt.outcome == "refused"
    fields = {field.alias or key for key, field in Receipt.model_fields.items()}
    section = FILES.partition("## Receipts")[2].partition("\n## ")[0]
    assert [field for field in sorted(fields) if f"`{field}`" not in section] == []


def test_what_a_text_may_look_like_is_told_as_the_code_has_it() -> None:
    forms = (inspect.getdoc(casts) or "").partition("\nboolean ")[2].rstrip()
    assert forms
    assert f"boolean {forms}\n" in FILES
