"""Writers, readers and producers of requests, killed while they are at work."""

from __future__ import annotations

import os
import random
import time
from functools import partial

import pytest

from lob import _native, records
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, open_segment
from processes.peer import eventually, in_own_shm, peers, read_all

WRITE_FOR_EVER = """
ring = OutputRing({name!r}, Kind.{kind}, policy={policy!r}, capacity_bytes=1 << 16, keep=True)
n = 0
while True:
    n += 1
    while not ring.writer.write(record(b"%d" % ring.writer.next_seq * (1 + n % 40), raw_seq=n)):
        ring.writer.wait_free(400, "auto", 20)
"""


@pytest.mark.parametrize(("kind", "policy"), [("SPSC", "drop"), ("BROADCAST", "wait")])
def test_a_writer_killed_at_any_point_leaves_whole_records_and_an_unbroken_count(
    name: str, kind: str, policy: str
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ring: InputRing | None = None
    last_seq, epochs = 0, []
    for _ in range(6):
        with peers(1) as (writer,):
            writer.start(WRITE_FOR_EVER.format(name=name, kind=kind, policy=policy))
            if ring is None:
                eventually(lambda: _exists(name), "the ring is there")
                ring = InputRing(name, "test")
            eventually(partial(_at_work, ring), "the writer is at work")
            end = time.monotonic() + chance.uniform(0.0, 0.05)
            while True:
                stop = time.monotonic() > end
                if stop:
                    writer.kill()
                for one in read_all(ring.reader):
                    seq = int(one.header["ring_seq"])
                    assert seq == last_seq + 1
                    assert set(one.text.split(b"%d" % seq)) == {b""}
                    last_seq = seq
                    epochs.append(int(one.header["epoch"]))
                if stop:
                    break
    assert last_seq > 100
    assert epochs == sorted(epochs) and len(set(epochs)) == 6


def _at_work(ring: InputRing) -> bool:
    return ring.writer_alive and not ring.reader.drained


def _exists(name: str) -> bool:
    try:
        open_segment(name, writable=False)
    except Exception:
        return False
    return True


def test_a_broadcast_reader_counts_every_record_while_a_fast_writer_laps_it(name: str) -> None:
    with peers(1) as (writer,):
        writer.start(WRITE_FOR_EVER.format(name=name, kind="BROADCAST", policy="drop"))
        eventually(lambda: _exists(name), "the ring is there")
        reader = _native.BroadcastReader(open_segment(name, writable=False), "newest")
        first = records.parse(eventually(reader.read, "a record"))
        start = int(first.header["ring_seq"])
        read = 1
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            if read % 1000 == 0:
                time.sleep(0.05)  # long enough to be lapped
            data = reader.read()
            if data is None:
                continue
            one = records.parse(data)
            seq = int(one.header["ring_seq"])
            assert set(one.text.split(b"%d" % seq)) == {b""}, "a mix of two records"
            read += 1
            assert start + read + reader.lost == seq + 1
        assert reader.laps > 0 and reader.lost > 0


def test_producers_of_requests_killed_at_any_point_cost_no_more_than_their_own(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=4096)
    queue = ring.requests
    post = (
        f"queue = Roles({name!r}).request_queue(open_segment({name!r}, writable=True))\n"
        "n = 0\nwhile True:\n    n += queue.post(n, 2, 0, 'SYM-%d' % n)\n"
    )
    seen = 0
    for _ in range(3):
        with peers(3) as producers:
            for one in producers:
                one.do("None")  # it has started
            for one in producers:
                one.start(post)
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                taken = queue.take()
                if taken is not None:
                    assert taken[3] == f"SYM-{taken[0]}"
                    seen += 1
    while queue.take() is not None:
        seen += 1
    assert seen > 100 and queue.damaged == 0
    time.sleep(0.01)  # what the dead were holding is taken back as soon as it is looked at after the grace
    while queue.take() is not None:
        pass
    for n in range(64):
        assert queue.post(n, 2, 0, "A"), "the queue has all its slots again"
    assert not queue.post(64, 2, 0, "A")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root for a mount namespace of its own")
def test_a_full_shm_is_one_sentence_with_both_sizes_and_leaves_nothing(name: str) -> None:
    program = (
        "import os\n"
        "from lob.errors import NoSpace\n"
        "from lob.rings import OutputRing\n"
        "from lob.segments import Kind\n"
        f"OutputRing({name!r}, Kind.SPSC, capacity_bytes=1 << 20)\n"
        f"try: OutputRing({name!r}.replace('.raw', '.events'), Kind.SPSC, capacity_bytes=1 << 26)\n"
        "except NoSpace as error: print(error)\n"
        "print(sorted(os.listdir('/dev/shm')))\n"
    )
    run = in_own_shm("8m", program)
    sentence, listing = run.stdout.splitlines()
    assert sentence == (
        f"{name.replace('.raw', '.events')} needs 65 MiB of shared memory and /dev/shm has 5 MiB free; "
        "enlarge /dev/shm or give a smaller --ring-bytes"
    )
    events = name[1:].replace(".raw", ".events")
    assert listing == str(sorted([name[1:], name[1:] + ".lock", events + ".lock"]))
