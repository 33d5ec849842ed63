"""What the spool costs: the same load with records on disk and with records in memory alone, in interleaved rounds."""
import statistics, time

import rates, stack
from api import Api

COST_MAX = 0.10


def cost(port: int, rounds: int, seconds: float, conns: int) -> None:
    """Two control planes, the second one's workers told to keep records in memory (`proxyplane-worker --no-spool`)."""
    rounds, seconds = 3 * rounds, seconds / 2  # many short ones: what else the machine does touches both sides
    sides = {"with": stack.Ours("spool", 17273), "without": stack.Ours("no-spool", 17274, {"PROXYPLANE_WORKER_NO_SPOOL": "true"})}
    for number, scenario in enumerate(("capture", "capture-tls")):
        ports = {}
        for side, ours in sides.items():
            ports[side] = port
            ours.proxy(scenario, port)
            port += 1
        spooled = {side: Api(ours).status(ours.get(scenario)["id"])["spool limit"] > 0 for side, ours in sides.items()}
        assert spooled == {"with": True, "without": False}, spooled
        sent, n = dict.fromkeys(sides, 0), 3000
        rate, answered, p99, cpu = ({side: [] for side in sides} for _ in range(4))
        for turn in range(rounds + 1):  # the first warms up, and sizes the rounds
            for side, ours in sides.items() if turn % 2 else reversed(sides.items()):
                pids = ours.pids(scenario)
                before = stack.cpu_us(pids["worker"])
                begin = time.monotonic()
                took, slow = rates.oha(ports[side], rates.URLS[scenario], n, conns)
                sent[side] += n
                ours.drained(scenario, sent[side])
                if turn:
                    rate[side].append(n / (time.monotonic() - begin))
                    answered[side].append(n / took)
                    p99[side].append(slow)
                    cpu[side].append((stack.cpu_us(pids["worker"]) - before) / n)
            if not turn:
                n = int(seconds * n / took)
        print(f"\nspool, {scenario}: {rounds} interleaved rounds of {n} requests, {conns} connections, medians; until the last row is committed")
        print(f"{'records':<14}{'req/s':>10}{'answered/s':>12}{'p99 ms':>10}{'worker µs':>11}")
        medians = {side: [statistics.median(values[side]) for values in (rate, answered, p99, cpu)] for side in sides}
        for side, name in (("with", "on disk"), ("without", "in memory")):
            print(f"{name:<14}{medians[side][0]:>10.0f}{medians[side][1]:>12.0f}{medians[side][2]:>10.2f}{medians[side][3]:>11.1f}")
        lost = [1 - with_ / without for with_, without in zip(medians["with"][:2], medians["without"][:2])]
        print(f"the spool costs {lost[0]:.1%} of the requests/s stored, {lost[1]:.1%} of those answered (wanted ≤{COST_MAX:.0%})")
    for ours in sides.values():
        stack.stop(ours.process)
