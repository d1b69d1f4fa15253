"""Words to the supervisor (systemd's notify protocol); silent when there is none."""

from __future__ import annotations

import os
import socket
import time


class Supervisor:
    """READY, STATUS, WATCHDOG and STOPPING, as sd_notify(3) says; a no-op without NOTIFY_SOCKET."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if address:
            speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                speaker.connect("\0" + address[1:] if address.startswith("@") else address)
                self._socket = speaker
            except OSError:
                speaker.close()  # left over from a supervisor that is not ours to talk to
        ours = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        interval_us = int(os.environ.get("WATCHDOG_USEC", "") or 0) if ours else 0
        # Twice as often as the time-out, as sd_watchdog_enabled(3) advises.
        self._watchdog_s = interval_us / 2e6
        self._next_watchdog = 0.0

    @property
    def present(self) -> bool:
        return self._socket is not None

    def _send(self, text: str, flags: int = socket.MSG_DONTWAIT) -> None:
        # Not waiting: a supervisor that hangs must not stop the books. What is lost so is said again soon.
        if self._socket is None:
            return
        try:
            self._socket.send(text.encode(), flags)
        except OSError:
            pass  # the manager restarts; nothing we can do about it

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={_one_line(status)}", 0)  # said once: it must arrive

    def status(self, text: str) -> None:
        self._send(f"STATUS={_one_line(text)}")

    def alive(self) -> None:
        """Called from the hot loop; speaks as often as the watchdog wants to hear it."""
        if self._watchdog_s and (now := time.monotonic()) >= self._next_watchdog:
            self._next_watchdog = now + self._watchdog_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")


def _one_line(text: str) -> str:
    """A line break would begin another assignment of the protocol."""
    return " ".join(text.split())
