"""A real systemd as pid 1 of namespaces of its own: pid, mount, uts, ipc and cgroup.

The cgroup namespace, in a cgroup directory of its own, is not optional: a manager started in the root cgroup moves
every process of the machine into its own scope. Here it sees one empty cgroup2 tree, starts nothing but the units it
is given (and a journal), writes to an overlay of /etc, and dies with this process. Network and /dev/shm are the host's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("systemd-analyze", "unshare", "nsenter", "setpriv", "taskset", "mount")
SYSTEMD = Path("/lib/systemd/systemd")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

TARGET = "[Unit]\nDescription={0}\nDefaultDependencies=no\n"
BOOT = {
    "basic.target": TARGET.format("basic"),
    "shutdown.target": TARGET.format("shutdown"),
    "sysinit.target": TARGET.format("sysinit")
    + "Wants=systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service\n",
    "probe.target": "[Unit]\nDescription=probe\nRequires=basic.target\nAfter=basic.target\n",
}
JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")

INIT = """
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/lock /run/dbus /run/etc.up /run/etc.wk /run/log/journal
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc.up,workdir=/run/etc.wk /etc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i container=lob-test PATH={path} LANG=C.UTF-8 SYSTEMD_UNIT_PATH={units} \\
    {systemd} --system --unit=probe.target --log-target=journal --log-level=info --show-status=no
"""
ENTER = 'echo "$BASHPID" > "$1/cgroup.procs" && exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child \
--mount --uts --ipc --cgroup bash "$2"'


def missing() -> str | None:
    """Why there can be no such manager here; None if there can."""
    if os.getuid() != 0:
        return "needs root"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if not SYSTEMD.exists():
        absent.append("systemd")
    return f"needs {', '.join(absent)}" if absent else None


class Manager:
    """systemctl and its relatives, inside."""

    def __init__(self, init_pid: int, units: Path) -> None:
        self._enter = ["nsenter", "-t", str(init_pid), "-m", "-p", "-u", "-i", "-C", "env", "-i", f"PATH={PATH}"]
        self._enter += ["LANG=C.UTF-8", "TERM=dumb", f"SYSTEMD_UNIT_PATH={units}"]

    def run(self, *command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._enter, *command], capture_output=True, text=True, timeout=timeout_s)

    def ctl(self, *arguments: str) -> str:
        result = self.run("systemctl", "--no-pager", *arguments)
        assert result.returncode == 0, f"systemctl {' '.join(arguments)}: {result.stderr}{self.journal()}"
        return result.stdout.strip()

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        text = self.ctl("show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in text.splitlines())

    def kill(self, unit: str, number: signal.Signals) -> None:
        """To the main process, by its number inside."""
        self.run("kill", f"-{number.value}", self.properties(unit, "MainPID")["MainPID"])

    def processes(self) -> list[str]:
        """Command lines of everything that runs inside."""
        return self.run("ps", "-eo", "args=").stdout.splitlines()

    def journal(self, unit: str | None = None) -> str:
        of = [] if unit is None else ["-u", unit]
        return self.run("journalctl", "--no-pager", "-o", "short-monotonic", "-n", "200", *of).stdout


@contextmanager
def manager(folder: Path, units: Path) -> Iterator[Manager]:
    """Boots on the unit files in `units`; `folder` is for what else it needs. Raises OSError if that is not allowed."""
    for name, text in BOOT.items():
        (units / name).write_text(text)
    for name in JOURNAL:
        source = SYSTEMD.parent / "system" / name
        if source.exists():
            shutil.copy(source, units / name)
    init = folder / "init.sh"
    init.write_text(INIT.format(path=PATH, units=units, systemd=SYSTEMD))
    with _own_cgroup(folder) as cgroup, (folder / "systemd.log").open("wb") as log:
        outer = subprocess.Popen(
            ["bash", "-c", ENTER, "bash", str(cgroup), str(init)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield Manager(_booted(outer, units, folder), units)
        finally:
            outer.kill()  # and with it, by --kill-child and --pdeathsig, all that runs inside
            outer.wait()


def _booted(outer: subprocess.Popen[bytes], units: Path, folder: Path) -> int:
    """The number, outside, of the pid 1 inside."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    deadline = time.monotonic() + 15
    state = ""
    while time.monotonic() < deadline:
        if outer.poll() is not None:
            raise OSError(f"no namespaces: {(folder / 'systemd.log').read_text()}")
        first = children.read_text().split()
        if first and Path(f"/proc/{first[0]}/exe").resolve().name == "systemd":
            state = Manager(int(first[0]), units).run("systemctl", "is-system-running").stdout.strip()
            if state in ("running", "degraded"):
                return int(first[0])
        time.sleep(0.05)
    raise OSError(f"systemd did not come up ({state}): {(folder / 'systemd.log').read_text()}")


@contextmanager
def _own_cgroup(folder: Path) -> Iterator[Path]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    trees = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    mounted = None
    if not trees:
        mounted = folder / "cgroup2"
        mounted.mkdir()
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(mounted)], check=True)
        trees = [mounted]
    cgroup = trees[0] / f"lob-test-{os.getpid()}"
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        deadline = time.monotonic() + 5
        while cgroup.exists() and time.monotonic() < deadline:
            below = sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True)
            try:
                for path in [*below, cgroup]:
                    path.rmdir()
            except OSError:  # its last processes are on their way out
                time.sleep(0.05)
        if mounted is not None:
            subprocess.run(["umount", str(mounted)], check=True)
