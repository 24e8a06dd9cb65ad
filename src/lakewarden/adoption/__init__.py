"""A read-only survey of a lakehouse that others made, which becomes local files."""
