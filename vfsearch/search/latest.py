"""Doing the newest of something in the background, again until it succeeds."""

import threading
from collections.abc import Callable

from vfsearch.errors import TrackingError

_FIRST, _LONGEST = 1.0, 30.0
"""Seconds between two tries."""


class Latest:
    """Runs ``action`` in a thread after each `note`; notes that come meanwhile are one.

    An action that raises `TrackingError` (the server is away) is tried again, at growing intervals,
    or at once after the next note.
    """

    def __init__(self, action: Callable[[], None], name: str) -> None:
        """Start the thread; it ends with `close` or with the process."""
        self._action = action
        self._changed = threading.Condition()
        self._noted = self._done = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def note(self) -> None:
        """There is something new; returns at once."""
        with self._changed:
            self._noted += 1
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until everything noted so far is done; False: it is not, after ``timeout``."""
        with self._changed:
            wanted = self._noted
            return self._changed.wait_for(lambda: self._done >= wanted, timeout)

    def close(self, timeout: float) -> bool:
        """End the thread after what is noted, or after ``timeout`` seconds; False: not all done."""
        done = self.wait(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout if done else 0)
        return done

    def _run(self) -> None:
        pause = _FIRST
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._noted > self._done)
                if self._closing:
                    return
                noted = self._noted
            try:
                self._action()
            except TrackingError:
                self._wait_for_another(noted, pause)
                pause = min(2 * pause, _LONGEST)
                continue
            pause = _FIRST
            with self._changed:
                self._done = noted
                self._changed.notify_all()

    def _wait_for_another(self, noted: int, pause: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._noted > noted, pause)
