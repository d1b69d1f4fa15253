"""asyncio's selector, with sockets in it that are read natively.

asyncio waits in `select`. While it waits, sockets that were given to `read_frames` are read there, without the
interpreter: a message goes from the kernel into the ring with no Python at all, and no thread needs a lock for it.
"""

from __future__ import annotations

import selectors
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lob_connect._native import FrameReader, Poller

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike
else:
    FileDescriptorLike = Any

FOR_EVER_S = 1.0  # Poller.wait comes back much earlier in any case


class FrameSelector(selectors.BaseSelector):
    """Use it for a loop: asyncio.SelectorEventLoop(FrameSelector())."""

    def __init__(self, *, busy: bool = False) -> None:
        """`busy`: never sleep; needs a core of its own."""
        self._poller = Poller(busy)
        self._keys: dict[FileDescriptorLike, selectors.SelectorKey] = {}  # by number: asyncio gives numbers

    def read_frames(self, fd: int, reader: FrameReader) -> bool:
        """Read this socket natively until asyncio stops watching it or it ends. False: it is not watched."""
        return self._poller.read_frames(fd, reader)

    def read_tls(
        self,
        fd: int,
        reader: FrameReader,
        incoming: ssl.MemoryBIO,
        read: Callable[[int, memoryview], int],
        is_closing: Callable[[], bool],
        ended: Callable[[ssl.SSLError | None], None],
    ) -> bool:
        """The same for a socket with TLS, whose `read` decrypts what is written to `incoming`.

        `is_closing` is asked when other Python code may have run; True, and asyncio reads on. `ended` is called with
        the error of TLS, or None when the other side has closed it; asyncio reads on then, too.
        """
        return self._poller.read_tls(fd, reader, incoming, read, is_closing, ended)

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = _number(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        return self._watch(fileobj, fd, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        fd = _number(fileobj)
        key = self._keys.pop(fd)
        self._poller.forget(fd)
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = _number(fileobj)
        if fd not in self._keys:
            raise KeyError(f"{fileobj!r} is not registered")
        return self._watch(fileobj, fd, events, data)

    def _watch(self, fileobj: FileDescriptorLike, fd: int, events: int, data: Any) -> selectors.SelectorKey:
        if not events or events & ~(selectors.EVENT_READ | selectors.EVENT_WRITE):
            raise ValueError(f"no such events: {events}")
        self._poller.watch(fd, events)
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._poller.wait(FOR_EVER_S if timeout is None else max(timeout, 0.0))
        # What a source of this very round unregistered is not ready any more.
        return [(key, events & key.events) for fd, events in ready if (key := self._keys.get(fd)) is not None]

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._poller.close()
        self._keys.clear()


def _number(fileobj: FileDescriptorLike) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
