"""Writing what a restore plan says, task by task, in worker processes.

Invariant: every task is done by exactly one of three runs, and tells of each file that is not right.
"""

from __future__ import annotations

import os

from drctl.repository.extract_entries import EntriesRun, ReuseRun
from drctl.repository.extract_packs import PackRun
from drctl.repository.extract_task import (
    EntriesTask,
    PackTask,
    ReuseTask,
    WriteContext,
    WriteTask,
    Written,
)


def write_task(context: WriteContext, task: WriteTask) -> Written:
    """Do one task; errors of single files are in the result. DrctlError where nothing that follows
    can succeed."""
    os.umask(0)  # of this worker process: modes are given with open(2)
    match task:
        case PackTask():
            return PackRun(context, task.pack).run()
        case EntriesTask():
            return EntriesRun(context).run(task.numbers)
        case ReuseTask():
            return ReuseRun(context).run(task.number)
