"""Templates of tables, what has to change to reach them, and drift from them. All pure."""
