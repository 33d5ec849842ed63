"""Requests per second with every exchange persisted, beside the peers, in interleaved rounds of one run."""
import json, os, statistics, subprocess, sys, time

import stack

URLS = {"capture-tls": f"https://localhost:{stack.ORIGIN_TLS}/", "capture": f"http://127.0.0.1:{stack.ORIGIN_HTTP}/"}
AIMS = {"capture-tls": {"mitmdump": 20, "hudsucker": 0.6}, "capture": {"mitmdump": 20, "hudsucker": 0.5}}


def oha(port: int, url: str, n: int, conns: int) -> tuple[float, float]:
    """One load of n requests: (seconds, p99 in ms). Any request that is not answered 200 ends the benchmark."""
    argv = ["oha", "--no-tui", "-n", str(n), "-c", str(conns), "--insecure", "--output-format", "json", "-x", f"http://127.0.0.1:{port}", url]
    answer = json.loads(subprocess.run(argv, capture_output=True, text=True).stdout)
    if answer["statusCodeDistribution"] != {"200": n}:
        sys.exit(f"port {port}: {answer['statusCodeDistribution']} {answer['errorDistribution']}")
    return answer["summary"]["total"], answer["latencyPercentiles"]["p99"] * 1e3


def run(scenario: str, ours: "stack.Ours", port: int, peers: list[str], rounds: int, seconds: float, conns: int) -> None:
    url = URLS[scenario]
    name = f"rate-{scenario}"
    ours.proxy(name, port)
    ports = {"ours": port} | {p: stack.PEERS[p] for p in peers}
    sent = 0
    per_second = {}
    for who, at in ports.items():  # warm-up, which also sizes the rounds
        n = 200 if who == "mitmdump" else 3000
        took, _ = oha(at, url, n, conns)
        per_second[who] = n / took
        sent += n if who == "ours" else 0
    ours.drained(name, sent)
    rates, p99s, cpu = {w: [] for w in ports}, {w: [] for w in ports}, []
    for _ in range(rounds):
        for who, at in ports.items():
            n = max(100, int(seconds * per_second[who]))
            pids = ours.pids(name) if who == "ours" else {}
            before = {k: stack.cpu_us(v) for k, v in pids.items()}
            begin = time.monotonic()
            took, p99 = oha(at, url, n, conns)
            per_second[who] = n / took
            if who == "ours":
                sent += n
                ours.drained(name, sent)
                took = time.monotonic() - begin
                cpu.append({k: (stack.cpu_us(v) - before[k]) / n for k, v in pids.items()})
            rates[who].append(n / took)
            p99s[who].append(p99)
    stored = ours.get(name)["stored"]
    print(f"\n{scenario}: {rounds} rounds of {seconds:g} s, {conns} connections, medians; ours counts until the last row is committed")
    print(f"{'proxy':<14}{'req/s':>10}{'p99 ms':>10}{'ours/it':>10}{'wanted':>10}")
    mine = statistics.median(rates["ours"])
    for who in ports:
        rate, aim = statistics.median(rates[who]), AIMS[scenario].get(who)
        print(f"{who:<14}{rate:>10.0f}{statistics.median(p99s[who]):>10.2f}{mine / rate:>10.2f}{f'≥{aim}' if aim else '':>10}")
    if "hudsucker" in ports:
        print(f"p99 of ours ÷ hudsucker's: {statistics.median(p99s['ours']) / statistics.median(p99s['hudsucker']):.2f} (wanted ≤2)")
    per = {k: statistics.median(c[k] for c in cpu) for k in cpu[0]}
    print("CPU µs per exchange: " + ", ".join(f"{k} {v:.1f}" for k, v in per.items()))
    print(f"rows = requests: {stored} = {sent}: {stored == sent}")
    if stored != sent:
        sys.exit("rows and requests differ")
    worker = ours.get(name)["pid"]
    print(f"worker after the load: {stack.rss_mib(worker):.1f} MiB (peak {stack.rss_mib(worker, 'VmHWM'):.1f})")
