"""Real servers on this machine: an S3-compatible one (moto) and nginx."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def started(command, port, **environment):
    """A server process, from when it listens until the block ends."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(port, process):
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at once, with exit code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server does not listen")


@contextmanager
def s3_server(**environment):
    """An S3 of this machine's own: its address."""
    port = free_port()
    with started([sys.executable, "-m", "moto.server", "-p", str(port)], port, **environment) as url:
        yield url


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $connection_requests $overloaded {{ default 0; ~[1357]$ 1; }}
  server {{ listen 127.0.0.1:{port}; root {root}; {options} }}
}}
"""


@contextmanager
def nginx(root, folder, options=""):
    """nginx serving ``root``: its address."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is not installed (apt install nginx-light)")
    folder.mkdir(exist_ok=True)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, root=root, port=port, options=options))
    user = ["-g", "user root;"] if os.geteuid() == 0 else []  # the folders of tests are for their owner only
    with started([program, "-e", str(folder / "start.log"), "-c", str(folder / "nginx.conf"), *user], port) as url:
        yield url
