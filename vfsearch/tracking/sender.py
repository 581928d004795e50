"""The background thread that delivers a spool while its process goes on."""

import logging
import threading

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_exponential_jitter,
)

from vfsearch.tracking.connection import Connection
from vfsearch.tracking.delivery import Delivered, deliver
from vfsearch.tracking.spool import Spool

logger = logging.getLogger(__name__)

LONGEST_WAIT = 30.0
"""Seconds between two attempts when a server has been away for long."""
CLOSING_WAIT = 1.0
"""The same once the process only waits for the sender."""


class Sender(threading.Thread):
    """Sends what was appended, retries for ever with back-off, and never raises."""

    def __init__(self, spool: Spool, connection: Connection) -> None:
        super().__init__(name=f"send-{spool.key.name}", daemon=True)
        self.delivered = Delivered()
        self.failures = 0
        """Failed attempts so far."""
        self._spool = spool
        self._connection = connection
        self._news = threading.Event()
        self._closing = threading.Event()
        self._stop_now = threading.Event()

    def wake(self) -> None:
        """Tell that something was appended."""
        self._news.set()

    def close(self, timeout: float) -> bool:
        """Send the rest for at most ``timeout`` seconds; whether everything was sent."""
        self._closing.set()
        self._news.set()
        self.join(timeout)
        self._stop_now.set()
        return not self.is_alive() and self._spool.is_sent()

    def run(self) -> None:
        """Deliver until closed; the spool is given up at the end."""
        try:
            while not self._stop_now.is_set():
                self._news.wait()
                self._news.clear()
                self._deliver()
                if self._closing.is_set() and self._spool.is_sent():
                    return
        finally:
            self._spool.release()

    def _deliver(self) -> None:
        try:
            Retrying(
                # Whatever it is, training must not suffer; the log is kept and told about.
                retry=retry_if_exception_type(Exception),
                wait=wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT, jitter=0.5),
                stop=stop_when_event_set(self._stop_now),
                sleep=self._sleep,
                before_sleep=self._report,
                reraise=True,
            )(deliver, self._spool, self._connection, self.delivered)
        except Exception as error:
            logger.warning("%s: not everything could be sent: %s", self._spool.key.name, error)

    def _sleep(self, seconds: float) -> None:
        if self._closing.is_set():
            self._stop_now.wait(min(seconds, CLOSING_WAIT))
        else:
            self._closing.wait(seconds)

    def _report(self, state: RetryCallState) -> None:
        self.failures += 1
        if state.attempt_number == 1 and state.outcome is not None:
            logger.warning(
                "%s: sending to the tracking server failed, it is tried again: %s",
                self._spool.key.name,
                state.outcome.exception(),
            )
