"""Stands in for durability: what was changed is on disk some seconds later.

ministack writes its state when it is asked to stop, and loses all of it when it is killed.
"""

import threading
from typing import Any

_SECONDS = 3.0


def mend() -> None:
    from ministack import app
    from ministack.core import persistence

    one_at_a_time, ending = threading.Lock(), threading.Event()  # all write to the same drafts
    save_all = app.save_all

    def save() -> None:
        while not ending.wait(_SECONDS):
            with one_at_a_time:
                if app._BOOTED.is_set() and not ending.is_set():
                    # What changes meanwhile is logged, and saved the next time.
                    save_all(app._build_persistence_save_dict())

    def save_last(services: Any) -> None:
        """ministack's own, when it stops: nothing older is written after it."""
        ending.set()
        with one_at_a_time:
            save_all(services)

    app._BOOTED = threading.Event()
    load = app._load_persisted_state

    def load_and_begin() -> None:
        load()
        app._BOOTED.set()  # before, an empty state would be written over the last one

    app._load_persisted_state = load_and_begin
    app.save_all = save_last
    persistence.logger.setLevel("WARNING")
    threading.Thread(target=save, name="saving", daemon=True).start()
