"""Starts ministack with what stands in for the rest of AWS: python FOLDER SOCKET HASTE."""

import asyncio
import importlib
import sys

_MENDS = (
    "alarm_messages",
    "execution_metrics",
    "saving",
    "target_health",
    "task_events",
    "token_waits",
    "trail",
)


def main() -> None:
    for name in _MENDS:  # beside this file, which is the first place where modules are looked for
        importlib.import_module(name).mend()
    importlib.import_module("alarm_states").mend(float(sys.argv[2]))
    app = importlib.import_module("ministack.app")
    settings = importlib.import_module("hypercorn.config").Config()
    settings.bind = [f"unix:{sys.argv[1]}"]
    settings.keep_alive_timeout = 75
    asyncio.run(importlib.import_module("hypercorn.asyncio").serve(app.app, settings))


if __name__ == "__main__":
    main()
