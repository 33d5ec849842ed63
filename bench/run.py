#!/usr/bin/env python3
"""Prints every judged figure of the capture proxy beside its peers, in one run: `make bench`, or `bench/run.py NAME…`.

Absolute figures depend on the machine; the ratios are what counts. Peers that are not installed are left out and said so."""
import argparse, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import lifecycle, outages, rates, spool, stack, streams, transfer, updates  # noqa: E402


class Run:
    """One run: our proxies, the peers that are there, what was asked for, and the proxy that was loaded last."""

    def __init__(self, ours: "stack.Ours", peers: list, args: argparse.Namespace):
        self.ours, self.peers, self.args, self.loaded = ours, peers, args, None

    def rates(self, scenario: str, port: int) -> None:
        rates.run(scenario, self.ours, port, self.peers, self.args.rounds, self.args.secs, self.args.conns)
        self.loaded = f"rate-{scenario}"

    def after_load(self) -> None:
        if self.loaded:
            lifecycle.after_load(self.ours, self.loaded)


# In this order, whatever the order of the arguments.
PARTS = {
    "idle": lambda run: lifecycle.idle(run.ours, 28410),
    "start": lambda run: lifecycle.start_to_first_byte(run.ours, 28411),
    "capture": lambda run: run.rates("capture", 28401),
    "capture-tls": lambda run: run.rates("capture-tls", 28402),
    "after-load": lambda run: run.after_load(),
    "transfer": lambda run: transfer.five_gib(run.ours, 28412, run.peers),
    "whole": lambda run: transfer.captured_whole(run.ours, 28413),
    "sse": lambda run: streams.sse(run.ours, 28414),
    "websockets": lambda run: streams.websockets(run.ours, 28415),
    "storage": lambda run: lifecycle.storage(run.ours, 28417),
    "updates": lambda run: updates.live(run.ours, 28418),
    "queued": lambda run: outages.queued(run.ours, 28416),
    "catch-up": lambda run: outages.catch_up(run.ours, 28419),
    "spool-cost": lambda run: spool.cost(28421, run.args.rounds, run.args.secs, run.args.conns),
    "backlog": lambda run: outages.backlog(run.ours, 28420),
}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PARTS)}; default: all")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--secs", type=float, default=5)
    ap.add_argument("--conns", type=int, default=64)
    a = ap.parse_args()
    if unknown := set(a.names) - set(PARTS):
        ap.error(f"unknown: {', '.join(sorted(unknown))}")
    names = a.names or PARTS
    try:
        stack.origin()
        ours = stack.Ours()
        wanted = [p for p in stack.PEERS if {"capture", "capture-tls", "transfer"} & set(names)]
        run = Run(ours, [p for p in wanted if stack.peer(p)], a)
        for name, part in PARTS.items():
            if name in names:
                part(run)
    finally:
        stack.stop_all()


if __name__ == "__main__":
    main()
