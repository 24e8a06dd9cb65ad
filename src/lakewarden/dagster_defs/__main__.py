"""python -m lakewarden.dagster_defs ARGUMENTS: `dagster ARGUMENTS`, which SIGTERM ends.

Dagster does on SIGTERM what it does on Ctrl-C. That is nothing at all where Ctrl-C is ignored, as a
shell has it for what it starts in the background, and who starts services may have it too.
"""

import runpy
import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)
