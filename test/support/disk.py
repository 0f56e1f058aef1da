"""A disk that fails as it is told, and what a power loss would have left of it (disk.c, which make test builds).

Disk          the disk of one folder: fail(), slow(), heal(); env for the programs that use it; note() among its entries
Recording     what was noted: crashes() are the folder's files after a power loss, at random moments
SmallDisk     a real one of few megabytes, which is there for the programs that argv() runs: fill(), make_room()
"""

import errno
import json
import mmap
import os
import random
import struct
import subprocess
import tempfile

from trial import BIN

PRELOAD = os.path.join(BIN, "test-disk.so")
FAULT = struct.Struct("<iiii16s")
ENTRY = struct.Struct("<IIQQ")
WHAT = ("reads", "writes", "syncs")
CREATE, WRITE, TRUNCATE, SYNC, SYNC_FAILED, SYNC_FOLDER, UNLINK, NOTE = 1, 2, 3, 4, 5, 6, 7, 100
SECTOR = 512


class Disk:
    def __init__(self, folder, record=False):
        assert os.path.exists(PRELOAD), f"make {PRELOAD}"
        own = tempfile.mkdtemp(prefix="postern-disk-")
        self.log = own + "/log"
        with open(own + "/control", "wb") as f:
            f.write(bytes(FAULT.size * len(WHAT)))
        with open(own + "/control", "r+b") as f:
            self.control = mmap.mmap(f.fileno(), FAULT.size * len(WHAT))
        self.env = {"LD_PRELOAD": PRELOAD, "DISK_FOLDER": folder, "DISK_CONTROL": own + "/control"}
        if record:
            self.env["DISK_LOG"] = self.log

    def set(self, what, error=0, times=0, delay_ms=0, only=""):
        FAULT.pack_into(self.control, WHAT.index(what) * FAULT.size, error, times, delay_ms, 0, only.encode())

    def fail(self, what, error, times=-1, only=""):
        """The next times calls on files whose names end with only; -1: until heal()."""
        self.set(what, error, times, only=only)

    def slow(self, what, ms):
        self.set(what, delay_ms=ms)

    def heal(self):
        for what in WHAT:
            self.set(what)

    def met(self, what):
        """How many calls have failed since it was said."""
        return FAULT.unpack_from(self.control, WHAT.index(what) * FAULT.size)[3]

    def note(self, *what):
        text = json.dumps(what).encode()
        with open(self.log, "ab", buffering=0) as f:
            f.write(ENTRY.pack(NOTE, 0, 0, len(text)) + text)


class File:
    """sure: what is on the platter. unsure: what was done since and may be, in part."""

    def __init__(self):
        self.sure = bytearray()
        self.unsure = []

    @staticmethod
    def apply(data, op, offset, new):
        if op == TRUNCATE:
            del data[offset:]
        data.extend(bytes(max(0, offset - len(data))))
        data[offset:offset + len(new)] = new

    def settle(self, ops):
        for op in ops:
            self.apply(self.sure, *op)
        self.unsure = []

    def left(self, dice):
        """What a power loss leaves."""
        how = dice.choice(("none", "all", "begin", "some", "torn"))
        ops = {"none": [], "begin": self.unsure[:dice.randrange(len(self.unsure) + 1)],
               "some": [x for x in self.unsure if dice.random() < 0.5]}.get(how, self.unsure)
        data = bytearray(self.sure)
        for op in ops:
            for part in self.torn(dice, *op) if how == "torn" else [op]:
                self.apply(data, *part)
        return data

    @staticmethod
    def torn(dice, op, offset, new):
        if op == TRUNCATE:
            return [(op, offset, new)] if dice.random() < 0.5 else []
        cuts = [offset, *range(offset // SECTOR * SECTOR + SECTOR, offset + len(new), SECTOR), offset + len(new)]
        return [(op, a, new[a - offset:b - offset]) for a, b in zip(cuts, cuts[1:]) if dice.random() < 0.5]


class Recording:
    def __init__(self, file):
        with open(file, "rb") as f:
            data = f.read()
        self.entries, at = [], 0
        while at + ENTRY.size <= len(data):
            op, name_bytes, offset, n = ENTRY.unpack_from(data, at)
            at += ENTRY.size
            self.entries.append((op, data[at:at + name_bytes].decode(), offset, data[at + name_bytes:at + name_bytes + n]))
            at += name_bytes + n

    def crashes(self, count, seed, on_note):
        """{name: bytes} after count power losses; on_note hears what was noted before each."""
        dice = random.Random(seed)
        moments = sorted(dice.choices(range(1, len(self.entries) + 1), k=count))
        names, sure_names = {}, {}
        for number, entry in enumerate(self.entries, 1):
            self.step(dice, names, sure_names, entry, on_note)
            while moments and moments[0] == number:
                moments.pop(0)
                left = dice.choice((names, sure_names))  # a new name may be there or not until its folder was synced
                yield {name: file.left(dice) for name, file in left.items()}

    @staticmethod
    def step(dice, names, sure_names, entry, on_note):
        op, name, offset, data = entry
        if op == NOTE:
            on_note(json.loads(data))
        elif op == CREATE:
            names[name] = File()
        elif op == UNLINK:
            names.pop(name, None)
        elif op == SYNC_FOLDER:
            sure_names.clear()
            sure_names.update(names)
        elif name in names:
            file = names[name]
            if op == SYNC:
                file.settle(file.unsure)
            elif op == SYNC_FAILED:  # the kernel tells once, and then holds for clean what it may have lost
                file.settle([x for x in file.unsure if dice.random() < 0.5])
            else:
                file.unsure.append((op, offset, data))


def crash_folder(files):
    folder = tempfile.mkdtemp(prefix="postern-crash-")
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
    return folder


class SmallDisk:
    """A tmpfs at a folder, in a mount namespace of its own that lives as long as its `cat`, as in namespaces.py. Needs root."""

    def __init__(self, folder, mebibytes, owner):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o "$1" tmpfs "$2" && exec cat', "sh",
             f"size={mebibytes}m,mode=0700,uid={owner.pw_uid},gid={owner.pw_gid}", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdin.write(b"\n")  # what comes back comes when it is mounted
        self.holder.stdin.flush()
        assert self.holder.stdout.read(1) == b"\n", "no small disk: mount refused"
        self.ballast = f"/proc/{self.holder.pid}/root{folder}/ballast"

    def argv(self, *argv):
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--", *argv]

    def fill(self):
        """To the last byte."""
        with open(self.ballast, "ab", buffering=0) as f:
            for n in (1 << 20, 4096, 1):
                try:
                    while f.write(bytes(n)):
                        pass
                except OSError as e:
                    assert e.errno == errno.ENOSPC

    def make_room(self):
        os.unlink(self.ballast)

    def close(self):
        self.holder.stdin.close()
        self.holder.wait(20)
        self.holder.stdout.close()
