//! A real nginx with plain HTTP/1.1 and TLS with HTTP/2.

use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::{Authority, Process, eventually, free_port, world::new_directory};

/// Served under `/`, by what they are for.
///
/// `/hello` text · `/gzip` text, compressed on request · `/status/404`, `/status/500` · `/repeated` repeated fields ·
/// `/files/NAME` what [`Nginx::put_file`] put there · `/upload/NAME` takes PUT · `/slow/NAME` files at 1 MiB/s.
///
/// The server at MEANING says of every request what it took it for, in `X-Meaning`: method, target, Host and body.
/// nginx reads a body only where it has use for it, which is why there is one behind it.
const CONFIGURATION: &str = r#"
USER
worker_processes 1;
daemon off;
pid DIR/nginx.pid;
error_log DIR/error.log warn;
events { worker_connections 2048; }
http {
    access_log DIR/access.log;
    client_body_temp_path DIR/tmp-body; proxy_temp_path DIR/tmp-proxy; fastcgi_temp_path DIR/tmp-fastcgi;
    uwsgi_temp_path DIR/tmp-uwsgi; scgi_temp_path DIR/tmp-scgi;
    client_max_body_size 0;
    default_type text/plain;
    root DIR/www;
    server {
        listen 127.0.0.1:HTTP;
        listen 127.0.0.1:TLS ssl http2;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate DIR/leaf.pem;
        ssl_certificate_key DIR/leaf.key;
        location = /hello { return 200 "hello from nginx\n"; }
        location = /query { return 200 "$request_uri\n"; }
        location = /status/404 { return 404 "nothing here\n"; }
        location = /status/500 { return 500 "broken\n"; }
        location = /status/204 { return 204; }
        location = /repeated { add_header X-Repeated one; add_header X-Repeated two; add_header x-rePeated three; return 200 "ok\n"; }
        location = /gzip { gzip on; gzip_min_length 1; gzip_types text/plain; try_files /gzip.txt =404; }
        location /files/ { }
        location /slow/ { limit_rate 1m; rewrite ^/slow/(.*)$ /files/$1 break; }
        location /upload/ { dav_methods PUT; create_full_put_path on; }
    }
    server {
        listen 127.0.0.1:MEANING;
        add_header X-Meaning '$request_method|$request_uri|$http_host|$request_body' always;
        location / { proxy_pass http://unix:DIR/behind.sock:; }
    }
    server {
        listen unix:DIR/behind.sock;
        return 204;
    }
}
"#;

/// The shared one; it is up.
pub fn nginx() -> &'static Nginx {
    static SHARED: OnceLock<Nginx> = OnceLock::new();
    SHARED.get_or_init(Nginx::start)
}

/// A running nginx.
pub struct Nginx {
    directory: PathBuf,
    authority: Authority,
    http: u16,
    tls: u16,
    meaning: u16,
    _process: Process,
}

impl Nginx {
    fn start() -> Self {
        let directory = new_directory("nginx");
        for sub in ["www/files", "www/upload"] {
            fs::create_dir_all(directory.join(sub)).expect("the directory can be made");
        }
        fs::write(directory.join("www/gzip.txt"), "compress me, please. ".repeat(500)).expect("it can be written");
        let authority = Authority::new(&directory.join("certificates"));
        let leaf = authority.leaf(&["localhost", "127.0.0.1"]);
        fs::copy(&leaf.certificate_file, directory.join("leaf.pem")).expect("it can be copied");
        fs::copy(&leaf.key_file, directory.join("leaf.key")).expect("it can be copied");
        let (http, tls, meaning) = (free_port(), free_port(), free_port());
        let text = CONFIGURATION
            .replace(
                "USER",
                if nix::unistd::geteuid().is_root() {
                    "user root;"
                } else {
                    ""
                },
            )
            .replace("DIR", &directory.display().to_string())
            .replace("HTTP;", &format!("{http};"))
            .replace("TLS ssl", &format!("{tls} ssl"))
            .replace("MEANING;", &format!("{meaning};"));
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, text).expect("the configuration can be written");
        let mut command = Command::new(program());
        command
            .arg("-p")
            .arg(&directory)
            .arg("-e")
            .arg(directory.join("error.log"))
            .arg("-c")
            .arg(&configuration);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start("nginx", &mut command, &directory);
        eventually("nginx listens", || {
            if let Some(status) = process.exited() {
                let log = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
                panic!("nginx ended with {status}: {log}");
            }
            TcpStream::connect(("127.0.0.1", tls)).ok()
        });
        Self {
            directory,
            authority,
            http,
            tls,
            meaning,
            _process: process,
        }
    }

    /// `http://127.0.0.1:port` and `path`.
    pub fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http)
    }

    /// `https://localhost:port` and `path`.
    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls)
    }

    /// Port of plain HTTP.
    pub fn http_port(&self) -> u16 {
        self.http
    }

    /// Port of TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls
    }

    /// `127.0.0.1:port` of the server that says what it took a request for.
    pub fn meaning(&self) -> String {
        format!("127.0.0.1:{}", self.meaning)
    }

    /// The CA of its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A file at `/files/NAME`.
    pub fn put_file(&self, name: &str, contents: &[u8]) {
        fs::write(self.directory.join("www/files").join(name), contents).expect("the file can be written");
    }

    /// What was PUT to `/upload/NAME`.
    pub fn uploaded(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.join("www/upload").join(name)).expect("the upload is there")
    }

    /// Lines of its access log.
    pub fn accesses(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// Debian keeps it outside an ordinary user's PATH.
fn program() -> &'static str {
    if PathBuf::from("/usr/sbin/nginx").exists() {
        "/usr/sbin/nginx"
    } else {
        "nginx"
    }
}
