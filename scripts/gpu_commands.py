"""Commands under a clock: each ends in time, with all of its children, and what it printed is kept."""

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Of the log, and of what one command prints.
MOST_LOG_BYTES, MOST_OUTPUT_BYTES = 12 << 20, 1 << 20
SECONDS_TO_END = 2


class Stopped(Exception):
    """A part ended early, and why."""


class Missing(Exception):
    """This machine lacks what a part needs."""


class Commands:
    """What they are run with, and the log of them all."""

    def __init__(self, log, environment):
        self.log, self.lock = open(log, "wb"), threading.Lock()
        self.environment = environment
        # When the running part ends.
        self.end = float("inf")
        self.running = []

    def run(self, command, seconds=None):
        """Its exit status, or "timed out", and what it printed on stdout."""
        limit = min(self.end, time.monotonic() + (seconds or 1e9)) - time.monotonic()
        if limit < 1:
            raise Stopped("no time was left")
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = self.start(command, stdout, stderr)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = "timed out"
            finally:
                end(process)
            said = read(stdout)
            self.write(f"\n$ {shlex.join(map(str, command))}\n".encode() + cut(said) + cut(read(stderr)))
            self.write(f"\n-> {code}\n")
        return code, said.decode(errors="replace")

    def need(self, command, seconds=None):
        """The stdout of a command that must succeed."""
        code, stdout = self.run(command, seconds)
        check(code)
        return stdout

    def background(self, command, until):
        """Starts a command that ends with the part, and waits until it has printed `until`."""
        output = tempfile.TemporaryFile()
        process = self.start(command, output, subprocess.STDOUT)
        while until.encode() not in read(output):
            if process.poll() is not None or time.monotonic() > self.end:
                self.write(cut(read(output)))
                raise Stopped(f"`{Path(command[-1]).name}` was not ready in time")
            time.sleep(0.05)

    def start(self, command, stdout, stderr):
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            # A group of its own, which is ended as a whole.
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def end_all(self):
        for process in self.running:
            end(process)
        self.running.clear()

    def write(self, text):
        text = text.encode() if isinstance(text, str) else text
        with self.lock:
            if self.log.tell() + len(text) < MOST_LOG_BYTES:
                self.log.write(text)
                self.log.flush()


def end(process):
    """A command's whole group, first asked, then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(SECONDS_TO_END)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue


def check(code):
    if code:
        raise Stopped(code if code == "timed out" else f"exit {code}")


def read(file):
    """All of a file that another process may still be writing at its end."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def cut(output):
    """The end of what a command printed, where errors are."""
    if len(output) <= MOST_OUTPUT_BYTES:
        return output
    return b"[...]\n" + output[-MOST_OUTPUT_BYTES:]
