"""memory-profiler's view of another process: run this file with the process's number. Imports no JAX.

A line on standard input begins the sampling, the next one ends it; each gets a line in reply: an empty one, and the
bytes by which the process's resident memory rose at its highest. Given a process's number, memory-profiler samples from
here; given a function, it would fork a process full of threads.

Where the input ends, whoever asked is gone, however that happened: then the process that is watched ends as well, with
all that it forked.
"""

import os
import select
import signal
import sys
from contextlib import suppress

import psutil
from memory_profiler import memory_usage

INTERVAL = 0.002  # seconds


def main(pid: int) -> None:
    with suppress(BrokenPipeError):  # nobody is there to be told
        while sys.stdin.readline():
            first = highest = resident(pid)
            print(flush=True)
            while not select.select([sys.stdin], [], [], 0)[0]:
                highest = max(highest, resident(pid))
            sys.stdin.readline()
            print(highest - first, flush=True)
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)


def resident(pid: int) -> float:
    """Resident bytes of a process; 0 once it has ended. Sleeps for the interval."""
    try:
        return float(memory_usage(pid, interval=INTERVAL, max_usage=True)) * 2**20
    except psutil.NoSuchProcess:
        return 0.0


if __name__ == "__main__":
    main(int(sys.argv[1]))
