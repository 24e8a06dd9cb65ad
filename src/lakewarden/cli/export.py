"""lakewarden export: what is published, as Parquet for those who do not read Iceberg."""

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import plural, say, show_json, show_table


def export(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Write main as Parquet, all tables of one version.

    Nothing is done where that version lies there already."""
    opened = open_project(project, env, as_json=as_json)
    done = opened.export()
    manifest = f"s3://{opened.env.bucket}/{opened.settings.export.prefix}_manifest.json"
    if as_json:
        changed = list(done.changed) if done.changed is not None else None
        told = done.export.model_dump(mode="json")
        show_json({"manifest": manifest, "changed": changed, "export": told})
        return
    if done.changed is None:
        say(f"Nothing to do: version {done.export.version} lies there already ({manifest}).")
        return
    tables = done.export.tables
    say(f"Exported version {done.export.version}: {plural(len(tables), 'table')} ({manifest}).")
    if tables:
        show_table(
            ["table", "rows", "files", "new", "left out"],
            [
                (
                    name,
                    table.rows,
                    len(table.files),
                    "yes" if name in done.changed else "no",
                    ", ".join(table.left_out),
                )
                for name, table in tables.items()
            ],
            right=["rows", "files"],
            flex=["left out"],
        )
