"""What stands in, within ministack's own process, for what it leaves out or does otherwise.

These modules run under ministack's Python, in its own environment, so they import nothing but the
standard library and, inside functions, ministack and what comes with it: of one version, pinned by
its hash. Each has `mend()`, which puts its part in place before the server starts.
"""
