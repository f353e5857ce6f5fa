"""Ceph's RADOS gateway: a real S3 server with Object Lock and conditional PUT.

One monitor, one object store daemon that keeps everything in memory, one gateway; about 15 s.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.processes import answers, free_port, require, running
from tests.servers.s3 import S3Server

_CONFIGURATION = """[global]
fsid={fsid}
mon host=[v1:127.0.0.1:{monitor_port}/0]
ms bind msgr2=false
mon client hunt interval=1
client mount timeout=80
mon osd min up ratio=0.0
auth cluster required=none
auth service required=none
auth client required=none
osd pool default size=1
osd pool default min size=1
osd pool default pg num=4
osd pool default pgp num=4
mon allow pool size one=true
mon max pg per osd=1000
osd crush chooseleaf type=0
osd objectstore=memstore
memstore device bytes=2147483648
run dir={directory}/run
admin socket={directory}/run/$name.asok
log file={directory}/run/$name.log
pid file={directory}/run/$name.pid
public addr=127.0.0.1
cluster addr=127.0.0.1
mon data={directory}/mon
osd data={directory}/osd
rgw data={directory}/rgw
rgw frontends=beast endpoint=127.0.0.1:{gateway_port}
rgw enable usage log=false
mon warn on pool no redundancy=false
"""


@contextmanager
def ceph_server(directory: Path) -> Iterator[S3Server]:
    """Start a cluster of one and its gateway. The user `AK`/`SK` exists."""
    monitor, store, gateway = (
        require("ceph-mon", "ceph-mon"), require("ceph-osd", "ceph-osd"), require("radosgw", "radosgw")
    )  # fmt: skip
    ceph = require("ceph", "ceph-common")
    for name in ("run", "mon", "osd", "rgw"):
        (directory / name).mkdir()
    configuration, log = directory / "ceph.conf", directory / "output"
    fsid, monitor_port, gateway_port = str(uuid.uuid4()), free_port(), free_port()
    configuration.write_text(
        _CONFIGURATION.format(
            fsid=fsid, directory=directory, monitor_port=monitor_port, gateway_port=gateway_port
        )
    )
    conf = ("-c", str(configuration))
    monitors = str(directory / "monmap")
    address = f"[v1:127.0.0.1:{monitor_port}/0]"
    _run(["monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monitors], log)
    _run([monitor, *conf, "--mkfs", "-i", "a", "--monmap", monitors], log)
    with ExitStack() as stack:
        stack.enter_context(running([monitor, *conf, "-i", "a", "-f"], lambda: answers(monitor_port), log))
        _run([ceph, *conf, "status"], log)  # waits for a quorum: before it the cluster has no id
        # the memory store ignores the id it is given: read back the one it made
        _run([store, *conf, "-i", "0", "--mkfs"], log, check=False)
        _run([ceph, *conf, "osd", "new", (directory / "osd" / "fsid").read_text().strip(), "0"], log)
        socket = directory / "run" / "osd.0.asok"
        stack.enter_context(running([store, *conf, "-i", "0", "-f"], socket.exists, log))
        start = [gateway, *conf, "-n", "client.rgw", "-f"]
        stack.enter_context(running(start, lambda: answers(gateway_port), log, timeout_s=60))
        user = ("user", "create", "--uid=t", "--display-name=t", "--access-key=AK", "--secret-key=SK")
        _run(["radosgw-admin", *conf, *user], log)
        yield S3Server(f"http://127.0.0.1:{gateway_port}", access_key="AK", secret_key="SK")


def _run(arguments: Sequence[str], log: Path, *, check: bool = True) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("ab") as output:
        subprocess.run(arguments, check=check, stdout=output, stderr=output, timeout=120, env=environment)
