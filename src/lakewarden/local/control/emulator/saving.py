"""Stands in for durability: what was changed is on disk some seconds later.

ministack writes its state when it is asked to stop, and loses all of it when it is killed.
"""

import threading
import time

_SECONDS = 3.0


def mend() -> None:
    from ministack import app
    from ministack.core import persistence

    def save() -> None:
        while True:
            time.sleep(_SECONDS)
            if app._BOOTED.is_set():  # what changes meanwhile is logged, and saved the next time
                persistence.save_all(app._build_persistence_save_dict())

    app._BOOTED = threading.Event()
    load = app._load_persisted_state

    def load_and_begin() -> None:
        load()
        app._BOOTED.set()  # before, an empty state would be written over the last one

    app._load_persisted_state = load_and_begin
    persistence.logger.setLevel("WARNING")
    threading.Thread(target=save, name="saving", daemon=True).start()
