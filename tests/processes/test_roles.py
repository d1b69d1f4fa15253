"""Roles between processes: held by a lock, freed by any death, never by a pid."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from lob.names import list_rings
from lob.rings import InputRing, OutputRing
from lob.roles import READER_ROLE, WRITER_ROLE, Roles, role_held
from lob.segments import Kind, RingState, unlink_if_idle
from processes.peer import Peer, PeerError, eventually, peers, read_all, record

NOBODY = 65534


def other_user(gid: int) -> Peer:
    """A process of nobody's, in this group only (it becomes so after its imports: our Python may not be its to run)."""
    peer = Peer()
    peer.do(f"os.setgroups([]); os.setgid({gid}); os.setuid({NOBODY})")
    return peer


def make(name: str, kind: str = "SPSC", keep: bool = True) -> str:
    return f"ring = OutputRing({name!r}, Kind.{kind}, capacity_bytes=4096, keep={keep})"


def test_a_live_owner_in_another_process_is_refused_by_its_pid_and_freed_by_sigkill(name: str) -> None:
    with peers(1) as (owner,):
        owner.do(make(name))
        with pytest.raises(Exception, match=rf"live owner \(pid {owner.pid}\)"):
            OutputRing(name, Kind.SPSC, capacity_bytes=4096, keep=True)
        assert role_held(name, WRITER_ROLE) and not role_held(name, READER_ROLE)
        owner.kill()
        assert not role_held(name)
        OutputRing(name, Kind.SPSC, capacity_bytes=4096, keep=True).close(RingState.PAUSED, remove=True)


def test_a_reader_sees_the_death_of_its_writer_and_the_next_owner(name: str) -> None:
    with peers(2) as (first, second):
        first.do(make(name))
        ring = InputRing(name, "test")
        epoch = ring.reader.epoch
        assert ring.writer_alive and not ring.silent
        first.kill()
        assert not ring.writer_alive and ring.state is RingState.OPEN
        eventually(lambda: ring.silent, "the heartbeat is old", 2)
        second.do(make(name))
        assert ring.writer_alive and not ring.silent and not ring.replaced()
        assert ring.reader.epoch == epoch + 1


def test_of_many_that_want_a_ring_at_once_one_gets_it(name: str) -> None:
    with peers(4) as crowd:
        for round_ in range(5):
            for one in crowd:
                one.start(f"won = 0\ntry:\n {make(name, keep=bool(round_ % 2))}\n won = 1\nexcept RoleTaken: pass")
            for one in crowd:
                one.answer()
            winners = [one for one in crowd if one.do("won")]
            assert len(winners) == 1 and role_held(name, WRITER_ROLE)
            winners[0].do(f"ring.close(RingState.PAUSED, remove={round_ % 3 == 0})")
            assert not role_held(name)


def test_a_second_reader_is_refused_until_the_first_is_killed(name: str) -> None:
    with peers(3) as (owner, first, second):
        owner.do(make(name))
        first.do(f"ring = InputRing({name!r}, 'parse')")
        with pytest.raises(PeerError, match=rf"RoleTaken: .* live reader \(pid {first.pid}\)"):
            second.do(f"ring = InputRing({name!r}, 'parse')")
        first.kill()
        second.do(f"ring = InputRing({name!r}, 'parse')")


def test_a_ring_is_unlinked_only_after_the_last_role_is_gone(name: str) -> None:
    with peers(2) as (owner, reader):
        owner.do(make(name, "BROADCAST"))
        reader.do(f"ring = InputRing({name!r}, 'publish')")
        assert not unlink_if_idle(name)
        owner.kill()
        assert not unlink_if_idle(name) and list_rings() and role_held(name)
        reader.kill()
        assert unlink_if_idle(name) and not Path(f"/dev/shm{name}.lock").exists()


def test_roles_do_not_leak_into_programs_that_a_holder_starts(name: str) -> None:
    with peers(1) as (owner,):
        owner.do(make(name))
        child = owner.do("__import__('subprocess').Popen(['sleep', '60'], stdin=-3, stdout=-3, close_fds=False).pid")
        try:
            owner.kill()
            assert not role_held(name)
        finally:
            os.kill(child, 9)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_a_ring_of_another_user_is_refused_in_words(name: str) -> None:
    stranger = other_user(NOBODY)
    owner = OutputRing(name, Kind.BROADCAST, capacity_bytes=4096)
    try:
        for code in (
            f"open_segment({name!r}, writable=False)",
            f"InputRing({name!r}, 'x')",
            make(name),
            make(name, keep=False),
            f"role_held({name!r})",
        ):
            with pytest.raises(PeerError, match=r"ForeignOwner: .* belongs to another user"):
                stranger.do(code)
    finally:
        stranger.kill()
        owner.close(RingState.CLOSED, remove=True)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to change groups")
def test_a_group_may_read_the_public_ring_and_nothing_else(name: str) -> None:
    group = "daemon"
    owner = OutputRing(name, Kind.BROADCAST, capacity_bytes=4096, group=group)
    member = other_user(grp.getgrnam(group).gr_gid)
    try:
        member.do(f"reader = native.BroadcastReader(open_segment({name!r}, writable=False), 'newest')")
        owner.writer.write(record())
        assert member.do("len(reader.read())") == 88
        with pytest.raises(PeerError, match="ForeignOwner"):
            member.do(f"open_segment({name!r}, writable=True)")
    finally:
        member.kill()
        owner.close(RingState.CLOSED, remove=True)


def test_a_reader_that_was_killed_reads_again_what_it_had_not_released(name: str) -> None:
    with peers(1) as (reader,):
        ring = OutputRing(name, Kind.SPSC, capacity_bytes=4096)
        for _ in range(3):
            ring.writer.write(record())
        reader.do(f"ring = InputRing({name!r}, 'parse')")
        reader.do("ring.reader.read() and None")
        reader.do("ring.reader.publish()")
        reader.do("ring.reader.read() and None")
        reader.kill()
        left = InputRing(name, "parse").reader
        assert left.read() is not None and left.read() is not None and left.read() is None
        assert read_all(left) == []


def test_a_role_taken_on_a_lock_file_that_was_unlinked_meanwhile_is_taken_on_the_new_one(name: str) -> None:
    early = Roles(name)
    owner = OutputRing(name, Kind.SPSC, capacity_bytes=4096)  # puts a new lock file in place
    assert not early.try_take(WRITER_ROLE)
    owner.close(RingState.CLOSED, remove=True)
    assert early.try_take(WRITER_ROLE) and role_held(name, WRITER_ROLE)
    early.close()
    assert not role_held(name)
