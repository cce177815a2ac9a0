"""Real servers on this machine: an S3-compatible one (moto) and nginx."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest


@contextmanager
def started(command, *descriptors, **environment):
    """The address of a server process, from when it listens until the block ends."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **silent, pass_fds=descriptors, env={**os.environ, **environment})
    try:
        yield f"http://127.0.0.1:{port_of(process)}"
    finally:
        process.terminate()
        process.wait()


def port_of(process):
    """The port on which a process listens, once it does: that of no other server of this machine."""
    while process.poll() is None:
        for connection in psutil.Process(process.pid).net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                return connection.laddr.port
        time.sleep(0.05)
    raise RuntimeError(f"the server ended at once, with exit code {process.returncode}")


@contextmanager
def s3_server(**environment):
    """An S3 of this machine's own: its address."""
    with started([sys.executable, "-m", "moto.server", "-p", "0"], **environment) as url:
        yield url


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $connection_requests $overloaded {{ default 0; 1 1; }}
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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, root=root, port=port, options=options))
        user = ["-g", "user root;"] if os.geteuid() == 0 else []  # the folders of tests are for their owner only
        command = [program, "-e", str(folder / "start.log"), "-c", str(folder / "nginx.conf"), *user]
        with started(command, number, NGINX=f"{number};") as url:  # it takes over a socket that listens
            yield url
