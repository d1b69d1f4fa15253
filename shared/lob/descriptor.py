"""The line on the pipe between two stages."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from lob.names import check_name


@dataclass(frozen=True)
class Descriptor:
    """The line that a stage prints on the pipe: which ring, of what."""

    ring: str
    kind: str
    venue: str
    policy: str
    pid: int

    FORMAT = 1

    def line(self) -> bytes:
        return (
            orjson.dumps(
                {
                    "lob": self.FORMAT,
                    "ring": self.ring,
                    "kind": self.kind,
                    "venue": self.venue,
                    "policy": self.policy,
                    "pid": self.pid,
                }
            )
            + b"\n"
        )

    @classmethod
    def parse(cls, line: bytes) -> Descriptor:
        """Raises ValueError with one sentence."""
        try:
            fields = orjson.loads(line)
            version = fields["lob"]
            if version != cls.FORMAT:
                raise ValueError(f"a ring descriptor of format {version}, this build reads {cls.FORMAT}")
            name, pid = check_name(fields["ring"]), int(fields["pid"])
            return cls(name, str(fields["kind"]), str(fields["venue"]), str(fields["policy"]), pid)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ValueError("no line of lob-connect, lob-parse or lob-book (did you mean --in RING?)") from None
