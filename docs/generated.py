"""The pages that are generated, and by what."""

from collections.abc import Callable, Mapping

from docs import commands_page, errors_page, settings_page

GENERATED: Mapping[str, Callable[[], str]] = {
    "docs/commands.md": commands_page.page,
    "docs/errors.md": errors_page.page,
    "docs/settings.md": settings_page.page,
}
