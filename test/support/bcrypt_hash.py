"""bcrypt through the C library's crypt(3), as htpasswd -B writes it."""

import ctypes
import ctypes.util
import random

_crypt = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
_crypt.crypt.restype = ctypes.c_char_p


def of(password, cost=8):
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    salt = "".join(random.choice(alphabet) for _ in range(21)) + "O"
    return _crypt.crypt(password.encode(), f"$2b${cost:02}${salt}".encode()).decode().replace("$2b$", "$2a$", 1)
