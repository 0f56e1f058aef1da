"""A gRPC client that owes nothing to ours: Python's own, with classes made from the published messages."""

import importlib
import subprocess
import sys
import tempfile

import grpc
from trial import ROOT

_made = {}


def messages(*names):
    """name → (messages, stubs) of proto/name.proto."""
    missing = [n for n in names if n not in _made]
    if missing:
        out = tempfile.mkdtemp()
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}/proto", "-I/usr/include", f"--python_out={out}",
                        f"--grpc_python_out={out}", *[f"{ROOT}/proto/{n}.proto" for n in missing]], check=True)
        sys.path.insert(0, out)
        for n in missing:
            _made[n] = (importlib.import_module(f"{n}_pb2"), importlib.import_module(f"{n}_pb2_grpc"))
    return {n: _made[n] for n in names}


def channel(stand, daemon):
    return grpc.insecure_channel(f"unix:{stand.folder}/{daemon}.sock", [("grpc.enable_http_proxy", 0)])


def token(stand, role="session-admin", ttl="1h"):
    return stand.cli("token", "create", "--role", role, "--ttl", ttl).stdout.strip().splitlines()[-1]
