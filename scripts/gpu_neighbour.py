#!/usr/bin/env python3
"""A neighbour on the card: waits until another process makes a context there, then takes most of what is free.

It comes between that process's plan and its allocations, and goes after a while. scripts/gpu_check runs it.
"""

import argparse
import time

import torch

# Less than any context takes.
CONTEXT_BYTES = 100 << 20
STEADY_SECONDS = 0.03
GIB = 1 << 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leave", metavar="GIB", type=float, default=8, help="what stays free [default: 8]")
    parser.add_argument("--seconds", metavar="N", type=float, default=60, help="how long [default: 60]")
    args = parser.parse_args()
    torch.zeros(1, device="cuda")
    free, _ = torch.cuda.mem_get_info()
    print(f"{free / GIB:.2f} GiB are free", flush=True)
    end = time.monotonic() + args.seconds
    steady_since = now = None
    while time.monotonic() < end:
        before, now = now, torch.cuda.mem_get_info()[0]
        if now != before:
            steady_since = time.monotonic()
        # The other one has its context, and has looked at what is free.
        if free - now > CONTEXT_BYTES and time.monotonic() - steady_since > STEADY_SECONDS:
            break
        time.sleep(0.002)
    taken = int(now - args.leave * GIB)
    if taken > 0:
        held = torch.empty(taken, dtype=torch.uint8, device="cuda")
        print(f"took {held.numel() / GIB:.2f} GiB, {torch.cuda.mem_get_info()[0] / GIB:.2f} are free", flush=True)
    time.sleep(max(0.0, end - time.monotonic()))


if __name__ == "__main__":
    main()
