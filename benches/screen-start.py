#!/usr/bin/env python3
"""Measures how soon the screen is there: benches/screen-start.py RECADO PROFILE [RUNS]

Starts RECADO --as PROFILE in a pseudo-terminal of 80x24, and prints the time from its start to its first frame
and to an open session. The profile and its cluster must be known to this HOME."""
import fcntl, os, pty, select, statistics, struct, sys, termios, time

recado, profile = sys.argv[1:3]
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 20
PATIENCE = 10  # seconds


def read(terminal):
    if not select.select([terminal], [], [], PATIENCE)[0]:
        sys.exit(f"the screen said nothing for {PATIENCE} s")
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def once():
    began = time.monotonic()
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(recado, [recado, "--as", profile])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown, times = b"", []
    for word in [b"Everything", b"connected"]:
        while word not in shown:
            more = read(terminal)
            if not more:
                sys.exit(shown.decode(errors="replace"))
            shown += more
        times.append((time.monotonic() - began) * 1e3)
    os.write(terminal, b"\x03")
    while read(terminal):
        pass
    os.waitpid(child, 0)
    os.close(terminal)
    return times


for what, times in zip(["first frame", "open session"], zip(*(once() for _ in range(runs)))):
    print(f"{what}: p50 {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f} ms in {runs} runs")
