"""Everything a benchmark needs running: the origin, the peers, and Proxyplane itself. Linux only."""
import json, os, re, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DIR = Path(os.environ.get("BENCH_DIR", Path(tempfile.gettempdir()) / "proxyplane-bench"))
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
BODY = '{"k":"' + "x" * 1015 + '"}'  # 1,023 bytes
# The origin's; BENCH_PORTS moves them where 28000 is taken.
ORIGIN_HTTP = int(os.environ.get("BENCH_PORTS", "28000"))
ORIGIN_TLS, SINK = ORIGIN_HTTP + 443, ORIGIN_HTTP + 1
PEERS = {"mitmdump": 28201, "hudsucker": 28203}
TICK = os.sysconf("SC_CLK_TCK")

_running: list[subprocess.Popen] = []
_spawned: set[str] = set()

NGINX = """
worker_processes 1; daemon off; pid {d}/origin.pid; error_log {d}/origin.err warn;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 10000000; client_max_body_size 0; default_type application/json;
 client_body_temp_path {d}/tmp; proxy_temp_path {d}/tmp2; fastcgi_temp_path {d}/tmp3; uwsgi_temp_path {d}/tmp4; scgi_temp_path {d}/tmp5;
 server {{ listen 127.0.0.1:{http}; listen 127.0.0.1:{tls} ssl http2; ssl_certificate {d}/origin.crt; ssl_certificate_key {d}/origin.key;
  location / {{ return 200 '{body}'; }}
  location /files/ {{ alias {d}/www/; default_type application/octet-stream; limit_rate $arg_rate; }}
  location /sink {{ proxy_pass http://127.0.0.1:{sink}; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; }}
  location /sse {{ proxy_pass http://127.0.0.1:{sink}; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 600s; }}
 }} }}"""


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def spawn(name: str, argv: list[str], **kw) -> subprocess.Popen:
    """Starts a process whose output goes to a log in DIR, after that of its predecessor; it is stopped when the benchmark ends."""
    log = open(DIR / f"{name}.log", "a" if name in _spawned else "w")
    _spawned.add(name)
    process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **kw)
    _running.append(process)
    return process


def wait_port(port: int, what: str) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{what} did not come up on port {port}; logs are in {DIR}")


def stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            process.kill()


def stop_all() -> None:
    for process in reversed(_running):
        stop(process)
    _running.clear()


def keys() -> None:
    """A CA and a certificate for localhost, and the files the origin serves."""
    (DIR / "www").mkdir(parents=True, exist_ok=True)
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
    if not (DIR / "origin.crt").exists() or (DIR / "ext").read_text() != names:
        ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        (DIR / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
        sh(f"cd {DIR} && openssl req -x509 {ec} -keyout ca.key -out ca.crt -days 3650 -subj /CN=bench-ca"
           f" && openssl req {ec} -keyout origin.key -out origin.csr -subj /CN=localhost"
           f" && openssl x509 -req -in origin.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out origin.crt -days 3650 -extfile ext")
    if not (DIR / "www/100m").exists():
        sh(f"head -c 104857600 /dev/urandom > {DIR}/www/100m")
    if not (DIR / "www/5g").exists():
        sh(f"truncate -s 5G {DIR}/www/5g")  # sparse: the page cache, not the disk, is read


def origin() -> None:
    DIR.mkdir(parents=True, exist_ok=True)
    keys()
    (DIR / "origin.conf").write_text(NGINX.format(d=DIR, body=BODY, http=ORIGIN_HTTP, tls=ORIGIN_TLS, sink=SINK))
    for port in (ORIGIN_HTTP, ORIGIN_TLS, SINK):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                sys.exit(f"port {port} is taken, by another benchmark perhaps; BENCH_PORTS=29000 takes others")
    spawn("sink", [sys.executable, str(HERE / "sink.py"), str(SINK)])
    nginx = spawn("origin", ["nginx", "-c", str(DIR / "origin.conf")])
    wait_port(SINK, "sink")
    wait_port(ORIGIN_TLS, "nginx")
    if nginx.poll() is not None:
        sys.exit(f"nginx ended at once (is a port taken?); see {DIR}/origin.err")


def peer(name: str) -> bool:
    """Starts a peer if it is installed."""
    if name == "hudsucker":
        binary = HERE / "peers/hudsucker/target/release/hudsucker-peer"
        argv = [str(binary), str(DIR / "ca.crt"), str(PEERS[name])]
        there = binary.exists()
    else:
        mitmdump = os.environ.get("MITMDUMP") or shutil.which("mitmdump")
        there = mitmdump is not None
        argv = [str(mitmdump), "-q", "--ssl-insecure", "-p", str(PEERS[name]), "--set", "flow_detail=0", "--set", f"confdir={DIR}/mitm", "-w", f"{DIR}/flows.mitm"]
    if not there:
        print(f"# {name} is not installed and is left out (make bench installs what is missing)", file=sys.stderr)
        return False
    spawn(name, argv)
    wait_port(PEERS[name], name)
    return True


class Ours:
    """A control plane of our own with a fresh data directory, driven by proxyctl as a user would."""

    def __init__(self, name: str = "ours", port: int = 17272, env: dict[str, str] | None = None) -> None:
        self.name, self.port = name, port
        self.data = DIR / ("data" if name == "ours" else f"data-{name}")
        if self.data.exists():
            shutil.rmtree(self.data)
        self.server = f"http://127.0.0.1:{port}"
        self.env = os.environ | {"XDG_CONFIG_HOME": str(DIR / f"config-{name}"), "HOME": str(DIR), "PROXYCTL_SERVER": self.server} | (env or {})
        self.serve()
        self.ready()
        self.ctl("workspace", "create", "default", ok=(0, 5))

    def serve(self) -> None:
        """Starts the control plane on what is in its directory; see `ready`."""
        argv = [str(TARGET / "proxyplane"), "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", str(self.data)]
        self.process = spawn(f"proxyplane-{self.name}", argv, env=self.env)

    def ready(self) -> None:
        """Waits until the control plane is."""
        for _ in range(1200):  # initdb takes its time on a busy machine
            if subprocess.run([TARGET / "proxyctl", "system", "status"], env=self.env, capture_output=True).returncode == 0:
                break
            if self.process.poll() is not None:
                sys.exit(f"proxyplane ended at once; see {DIR}/proxyplane-{self.name}.log")
            time.sleep(0.05)
        else:
            sys.exit(f"proxyplane did not come up; see {DIR}/proxyplane-{self.name}.log")

    def kill(self) -> None:
        """SIGKILL of the control plane: its workers and its Postgres go on."""
        self.process.kill()
        self.process.wait()

    def ctl(self, *args: str, ok: tuple[int, ...] = (0,)):
        """Runs proxyctl with -o json and returns what it printed."""
        run = subprocess.run([TARGET / "proxyctl", "-o", "json", *args], env=self.env, capture_output=True, text=True)
        if run.returncode not in ok:
            sys.exit(f"proxyctl {' '.join(args)}: {run.stderr}")
        return json.loads(run.stdout) if run.stdout.strip() else None

    def refused(self, *args: str) -> str:
        """Runs proxyctl, which must fail, and returns what it said."""
        run = subprocess.run([TARGET / "proxyctl", *args], env=self.env, capture_output=True, text=True)
        if run.returncode == 0:
            sys.exit(f"proxyctl {' '.join(args)} succeeded: {run.stdout}")
        return run.stderr

    def proxy(self, name: str, port: int, *flags: str) -> None:
        self.ctl("proxy", "create", name, "--port", str(port), "--extra-ca", str(DIR / "ca.crt"), "--start", *flags)

    def get(self, name: str) -> dict:
        return self.ctl("proxy", "get", name)

    def drained(self, name: str, total: int, patience: float = 120) -> None:
        end = time.monotonic() + patience
        while (stored := self.get(name)["stored"]) < total:
            if time.monotonic() > end:
                sys.exit(f"{name}: {stored} of {total} exchanges stored")
            time.sleep(0.02)

    def pids(self, name: str) -> dict[str, list[int]]:
        postmaster = int((next(self.data.glob("pg/**/postmaster.pid"))).read_text().split()[0])
        return {"worker": [self.get(name)["pid"]], "control plane": [self.process.pid], "postgres": [postmaster, *children(postmaster)]}


def children(pid: int) -> list[int]:
    """Whoever of its threads started them."""
    return [int(p) for of in Path(f"/proc/{pid}/task").glob("*/children") for p in of.read_text().split()]


def cpu_us(pids: list[int]) -> float:
    """CPU time used so far, user and system, with that of reaped children."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(x) for x in fields[11:13])
        except FileNotFoundError:
            pass
    return total / TICK * 1e6


def status(pid: int, key: str) -> int:
    return int(re.search(rf"^{key}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def rss_mib(pid: int, key: str = "VmRSS") -> float:
    return status(pid, key) / 1024


def switches(pid: int) -> int:
    """Voluntary context switches of all its threads."""
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (t / "status").read_text(), re.M)[1]) for t in Path(f"/proc/{pid}/task").iterdir())


def size(directory: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def is_stopped(pid: int, thread: str) -> bool:
    """Does a thread not run, by proc_pid_stat(5)?"""
    return Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def quantile(values: list[float], q: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]
