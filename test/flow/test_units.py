"""deploy/systemd: the units as systemd would run them, and `make install`."""

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest
from sanitize import PATIENCE, assert_clean
from stand import PASSWORD, make_certificate, make_secret, password_hash
from trial import BIN, ROOT, Browser, free_port, wait_for

UNITS = os.path.join(ROOT, "deploy", "systemd")
PARTS = ("databroker", "authorize", "authenticate", "proxy")


@pytest.fixture()
def world():
    """A folder that stands for /, with everything a unit names."""
    root = tempfile.mkdtemp(prefix="postern-units-")
    for folder in ("etc/postern", "run/postern", "var/lib/postern", "usr/local"):
        os.makedirs(os.path.join(root, folder))
    os.symlink(BIN, os.path.join(root, "usr/local/bin"))
    yield root
    shutil.rmtree(root)


def moved(text, root):
    for folder in ("/etc/postern", "/run/postern", "/var/lib/postern", "/usr/local/bin"):
        text = text.replace(folder, root + folder)
    return text


def unit_of(part, root):
    with open(os.path.join(UNITS, f"postern-{part}.service")) as f:
        text = moved(f.read(), root)
    environment = dict(x.split("=", 1) for x in re.findall(r"^Environment=(.*)$", text, re.M))
    return re.search(r"^ExecStart=(.*)$", text, re.M)[1].split(), environment


def test_systemd_takes_the_units(world):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    copies = []
    for unit in glob.glob(UNITS + "/*.service"):
        copies.append(os.path.join(world, os.path.basename(unit)))
        with open(unit) as f, open(copies[-1], "w") as out:
            out.write(moved(f.read(), world))
    assert {f"postern-{part}.service" for part in PARTS} <= {os.path.basename(c) for c in copies}
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *copies], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_parts_run_as_their_units_say(world):
    port = free_port()
    key, certificate = make_certificate(world + "/etc/postern", "app.localhost", "authenticate.localhost")
    with open(world + "/etc/postern/users.yaml", "w") as f:
        f.write(f'- {{email: user@example.com, name: User, password: "{password_hash()}"}}\n')
    with open(world + "/etc/postern/config.yaml", "w") as f:
        f.write(f"""address: 127.0.0.1:{port}
certificates: [{{cert: {certificate}, key: {key}}}]
shared_secret: {make_secret()}
authenticate_service_url: https://authenticate.localhost:{port}
idp_provider: local
idp_local_users_file: {world}/etc/postern/users.yaml
routes:
  - from: https://app.localhost:{port}
    response: {{status: 200, body: in}}
    allow_any_authenticated_user: true
""")
    running, told = {}, {}
    try:
        for part in PARTS:  # as `systemctl start` of all four: the next one when this one is ready
            told[part] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            told[part].bind(f"{world}/notify-{part}")
            told[part].settimeout(30 * PATIENCE)
            command, environment = unit_of(part, world)
            with open(f"{world}/{part}.log", "wb") as log:
                running[part] = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env={
                    **{k: v for k, v in os.environ.items() if "SAN_OPTIONS" in k}, **environment, "PATH": "/usr/bin:/bin",
                    "NOTIFY_SOCKET": f"{world}/notify-{part}", "HEALTH_CHECK_ADDR": "off"})
            assert b"READY=1" in told[part].recv(4096)

        class Site:
            ca = certificate
        person = Browser(Site)
        page = person.login(f"https://app.localhost:{port}/", "user@example.com", PASSWORD)
        assert page.status_code == 200 and page.text == "in"
        assert os.listdir(world + "/var/lib/postern") and "databroker.sock" in os.listdir(world + "/run/postern")
        for part in reversed(PARTS):
            running[part].send_signal(signal.SIGTERM)
            assert running[part].wait(20 * PATIENCE) == 0, part  # TimeoutStopSec
            assert b"STOPPING=1" in told[part].recv(4096)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
        for s in told.values():
            s.close()
        assert_clean(f"{world}/{part}.log" for part in running)


def test_make_install_puts_everything_where_the_units_look(world):
    done = subprocess.run(["make", "-s", "-C", ROOT, "install", f"DESTDIR={world}/stage", "PREFIX=/opt/postern"],
                          capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k not in ("BIN", "SAN")})
    assert done.returncode == 0, done.stderr
    top = world + "/stage/opt/postern"
    for part in PARTS:
        with open(f"{top}/lib/systemd/system/postern-{part}.service") as f:
            program = re.search(r"^ExecStart=(\S+)", f.read(), re.M)[1]
        assert program == f"/opt/postern/bin/postern-{part}"
        assert os.access(f"{world}/stage{program}", os.X_OK)
    assert os.path.exists(top + "/lib/systemd/system/postern-proxy.socket")
    said = subprocess.run([top + "/bin/postern", "--version"], capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.strip()
    assert os.path.exists(top + "/share/doc/postern/LICENSE") and os.path.exists(top + "/lib/sysusers.d/postern.conf")
