"""What may be wrong with a ring: one exception a cause."""

from __future__ import annotations


class RingError(Exception):
    """Trouble with a ring, in one sentence."""


class NoRing(RingError):
    """No ring of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no ring named {name}; is the stage that makes it running?")
        self.name = name


class WrongLayout(RingError):
    """A segment of another layout, cut short, or garbage."""


class RoleTaken(RingError):
    """Somebody alive holds the role."""

    def __init__(self, name: str, role: str, pid: int) -> None:
        who = f" (pid {pid})" if pid else ""  # 0: it holds the role and has no segment yet
        # A reader gains nothing by another name: the name is the ring's.
        remedy = "choose another --instance" if role == "owner" else "read the ring of a later stage"
        super().__init__(f"{name} has a live {role}{who}; stop it, or {remedy}")
        self.name, self.pid = name, pid


class ForeignOwner(RingError):
    """The ring belongs to another user, who has not let us in."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} belongs to another user; run as that user, or choose another --instance")
        self.name = name


class NoSpace(RingError):
    """Shared memory is full."""
