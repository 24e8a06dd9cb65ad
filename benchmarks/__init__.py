"""What Lakewarden costs, measured beside what could be done without it. See README.md."""
