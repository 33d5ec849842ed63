#!/usr/bin/env python3
"""Prints every judged figure of the capture proxy beside its peers, in one run: `make bench`, or `bench/run.py NAME…`.

Absolute figures depend on the machine; the ratios are what counts. Peers that are not installed are left out and said so."""
import argparse, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import lifecycle, outages, rates, spool, stack, streams, transfer, updates  # noqa: E402

NAMES = ["idle", "start", "capture", "capture-tls", "after-load", "transfer", "whole", "sse", "websockets", "storage",
         "updates", "queued", "catch-up", "spool-cost", "backlog"]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--secs", type=float, default=5)
    ap.add_argument("--conns", type=int, default=64)
    a = ap.parse_args()
    if unknown := set(a.names) - set(NAMES):
        ap.error(f"unknown: {', '.join(sorted(unknown))}")
    names = a.names or NAMES
    try:
        stack.origin()
        ours = stack.Ours()
        wanted = [p for p in stack.PEERS if {"capture", "capture-tls", "transfer"} & set(names)]
        peers = [p for p in wanted if stack.peer(p)]
        if "idle" in names:
            lifecycle.idle(ours, 28410)
        if "start" in names:
            lifecycle.start_to_first_byte(ours, 28411)
        loaded = None
        for port, scenario in ((28401, "capture"), (28402, "capture-tls")):
            if scenario in names:
                rates.run(scenario, ours, port, peers, a.rounds, a.secs, a.conns)
                loaded = f"rate-{scenario}"
        if "after-load" in names and loaded:
            lifecycle.after_load(ours, loaded)
        if "transfer" in names:
            transfer.five_gib(ours, 28412, peers)
        if "whole" in names:
            transfer.captured_whole(ours, 28413)
        if "sse" in names:
            streams.sse(ours, 28414)
        if "websockets" in names:
            streams.websockets(ours, 28415)
        if "storage" in names:
            lifecycle.storage(ours, 28417)
        if "updates" in names:
            updates.live(ours, 28418)
        if "queued" in names:
            outages.queued(ours, 28416)
        if "catch-up" in names:
            outages.catch_up(ours, 28419)
        if "spool-cost" in names:
            spool.cost(28421, a.rounds, a.secs, a.conns)
        if "backlog" in names:
            outages.backlog(ours, 28420)
    finally:
        stack.stop_all()


if __name__ == "__main__":
    main()
