"""The two lives of lob-connect: a feed from the network, and a recording. The only file that touches the world."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path
from typing import Any

import click

from lob import _native as rings_native
from lob.names import instance_of
from lob.recording import Recorder, RecordingError
from lob.rings import OutputRing
from lob.segments import Kind, Policy
from lob.stage import Stage
from lob.trace import open_stage_trace
from lob.venues.venue import Venue
from lob_connect import _native
from lob_connect.feed import Feed, UnlistedSymbol
from lob_connect.raw import MANIFEST_FORMAT, RawRing, Stopped
from lob_connect.replay import Player
from lob_connect.selector import FrameSelector
from lob_connect.settings import Settings
from lob_connect.socket import Transport

RING_BYTES = 32 << 20
TICK_S = 0.01


def live(settings: Settings, venue: Venue) -> int:
    """Until a signal, the reader's end or --for; the exit code."""
    context = _tls_context(settings.ca)
    recorder = None if settings.record is None else _recorder(settings.record)
    stage = Stage("lob-connect", settings.common)
    ring = _open_ring(stage, venue, "live", "drop")
    raw = RawRing(stage, ring, recorder)
    transport = _transport(settings)
    feed = Feed(stage, raw, venue, settings, context, transport)
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(transport.selector)) as runner:
            totals = runner.run(_run_feed(stage, raw, feed, recorder))
    finally:
        if recorder is not None:
            recorder.close()
    if recorder is not None:
        if recorder.failure is not None and stage.exit_code == 0:
            stage.say(recorder.failure)
            stage.exit_code = 1
        totals += f", {recorder.lines} lines recorded"
        if recorder.lines_lost:
            totals += f" ({recorder.lines_lost} lost)"
    return stage.finish(totals)


async def _run_feed(stage: Stage, raw: RawRing, feed: Feed, recorder: Recorder | None) -> str:
    """The loop; the line of totals."""
    stage.status_with(lambda: _totals(raw, feed))
    starting = asyncio.create_task(feed.start())
    lost = False
    while stage.running():
        feed.tick()
        if starting.done() and (error := starting.exception()) is not None:
            if not isinstance(error, UnlistedSymbol):
                raise error
            stage.say(str(error))
            stage.exit_code = 2
            break
        if recorder is not None:
            if recorder.failure is not None:
                # Whoever asked for a recording gets one or an error; who wants the book without it runs a second
                # lob-connect for the recording.
                stage.say(f"{recorder.failure}; the recording ends here, and so does this feed")
                stage.exit_code = 1
                break
            if recorder.lines_lost and not lost:
                lost = True
                stage.say(f"{recorder.path}: the disk is too slow; lines are left out and counted")
        await asyncio.sleep(TICK_S)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError, UnlistedSymbol):
        await starting
    stopping = asyncio.create_task(feed.stop())
    while not stopping.done():
        raw.writer.beat()
        raw.tick()
        await asyncio.wait([stopping], timeout=0.05)
    await stopping
    return _totals(raw, feed)


def _totals(raw: RawRing, feed: Feed) -> str:
    frames, size_bytes = raw.received
    return (
        f"{frames} frames, {size_bytes} bytes, {raw.drops} dropped, {feed.reconnects} reconnects, "
        f"{feed.requests.taken} requests, {feed.rest.requests} by REST"
    )


def replay(settings: Settings, venue: Venue) -> int:
    """To the end of the recordings; the exit code."""
    stage = Stage("lob-connect", settings.common)
    ring = _open_ring(stage, venue, "replay", "wait")
    raw = RawRing(stage, ring)
    player = Player(stage, raw, venue, settings.speed)
    stage.status_with(lambda: f"{player.lines} lines replayed")
    started = time.monotonic()
    with contextlib.suppress(Stopped):
        try:
            for path in settings.replay:
                player.play(path)
            if player.lines and not raw.connections:
                urls = ", ".join(player.foreign_urls[:3]) or "no URL"
                stage.say(f"nothing of {venue.name} in {', '.join(map(str, settings.replay))}; it holds {urls}")
                stage.exit_code = 1
        except RecordingError as error:
            stage.say(f"{error}; the replay ends here" if error.line else str(error))
            stage.exit_code = 1
    player.take_requests()
    seconds = time.monotonic() - started
    return stage.finish(
        f"{player.lines} lines in {seconds:.1f} s, {raw.frames} frames, {raw.bytes} bytes, {raw.oversize} too large, "
        f"{player.skipped} lines of other venues, {player.requests} requests"
    )


def _open_ring(stage: Stage, venue: Venue, source: str, policy: Policy) -> OutputRing:
    manifest: dict[str, Any] = {"format": MANIFEST_FORMAT, "writer": "lob-connect", "venue": venue.name}
    manifest |= {"source": source, "policy": policy, "connections": []}
    ring = stage.open_output(
        "raw", Kind.SPSC, venue=venue.name, policy=policy, capacity_bytes=RING_BYTES, manifest=manifest
    )
    if stage.mode != "print":
        open_stage_trace(stage.tool, instance_of(ring.name), stage.say, rings_native.trace_to, _native.trace_to)
    return ring


def _transport(settings: Settings) -> Transport:
    native = settings.transport != "websockets"
    selector = FrameSelector(busy=settings.busy_poll) if native else None
    return Transport(native, selector, settings.rcvbuf, settings.busy_poll)


def _recorder(name: str) -> Recorder:
    try:
        return Recorder(time.strftime(name, time.gmtime()) if "%" in name else name)
    except RecordingError as error:
        raise click.BadParameter(str(error), param_hint="--record") from None


def _tls_context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise click.BadParameter(f"{ca} holds no certificate in PEM ({reason})", param_hint="--ca") from None
