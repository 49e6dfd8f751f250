"""A mount from its beginning to its end: in the foreground, or as a process of its own."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import platformdirs

from recallfs import log
from recallfs.catalog.store import Store
from recallfs.errors import AccessError, InvalidInputError
from recallfs.integrations.mount import apart, point
from recallfs.integrations.mount.binding import Server, load
from recallfs.integrations.mount.callers import can_become_others
from recallfs.integrations.mount.operations import MountOperations
from recallfs.resolve.stores import Stores

_POLL_S = 0.02
_LOOK_S = 1.0
_START_S = 60.0
_END_S = 5.0
"""How long recalls that are under way may take to end, once the mount is to."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def log_file(store: Store) -> Path:
    """Return where a mount in the background writes what happens."""
    return Path(platformdirs.user_log_dir("recallfs")) / f"mount-{store.name}.log"


def serve(stores: Stores, store: Store, place: Path) -> None:
    """Mount a store, and serve it until it is unmounted or the process is told to end.

    Parameters
    ----------
    place : Path
        Mount point: an empty folder, or the store's root.

    Raises
    ------
    InvalidInputError
        Something is missing, or the mount point cannot be used.
    ConflictError, AccessError
    """
    load()
    point.program()
    place = point.prepare(place, store.root)
    keeper = point.Keeper(place, store.url("").rstrip("/"), allow_other=can_become_others())
    if store.root == place or store.root.is_relative_to(place):
        apart.leave()
    operations = MountOperations(stores, store)  # looks at the root while nothing covers it
    descriptor = keeper.mount()
    ended = threading.Event()
    server = Server(operations, outside=keeper.outside)

    def run() -> None:
        try:
            server.serve(descriptor)
        finally:
            ended.set()

    def tell(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in _SIGNALS:
        signal.signal(number, tell)
    gc.collect()
    gc.freeze()  # what is there now stays, and needs not be looked through again and again
    threading.Thread(target=run, name="mount").start()
    log.event("mount", operation="mount", store=store.name, path=str(place))
    _notify("READY=1")
    while not ended.wait(_LOOK_S):
        # Other views of the disks, as of a proof that runs, may hold on to what is unmounted here.
        if not keeper.is_mounted and server.is_idle:
            break
    _notify("STOPPING=1")
    keeper.unmount()
    until = time.monotonic() + _END_S
    while server.is_opening and time.monotonic() < until:
        time.sleep(_POLL_S)
    log.event("mount", operation="unmount", store=store.name, path=str(place))
    store.catalog.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libfuse, or of a recall that is under way, would be waited for. What is half-done
    # is swept up by whoever opens the store next, as after a kill.
    os._exit(0)


def start(store: Store, place: Path) -> Path:
    """Mount a store by a process in the background; return when it is there.

    Returns
    -------
    Path
        Of the log.

    Raises
    ------
    RecallError
        What `serve` raises.
    """
    load()
    point.program()
    place = point.prepare(place, store.root)
    written = log_file(store)
    try:
        written.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise AccessError(f"the log {written} cannot be written: {error.strerror}.") from error
    begin = os.lseek(output, 0, os.SEEK_END)
    command = [sys.executable, "-m", "recallfs", "mount", str(place)]
    process = subprocess.Popen(
        [*command, "--store", store.name, "--foreground"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    os.close(output)
    until = time.monotonic() + _START_S
    while point.mounted(place) is None:
        code = process.poll()
        if code is None and time.monotonic() < until:
            time.sleep(_POLL_S)
            continue
        process.kill()
        with written.open("rb") as file:
            file.seek(begin)
            said = file.read().decode(errors="replace").strip().splitlines()
        last = said[-1].removeprefix("error: ") if said else f"its process ended with {code}."
        raise InvalidInputError(f"{store.name} could not be mounted: {last}")
    process.returncode = 0  # it is not ours to wait for
    return written


def configure_log(stores: Stores) -> None:
    """Tell of events on standard error, unless the configuration says where."""
    settings = stores.config.log
    log.configure(settings.level or "info", settings.form, settings.file)


def _notify(state: str) -> None:
    """Tell systemd, if it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError as error:
            log.event("mount", is_failure=True, operation="notify", message=str(error))
