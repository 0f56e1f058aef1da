"""Network namespaces joined by a bridge, and what goes wrong between them. Needs root, iproute2 and iptables.

Network          a bridge in a namespace of its own; the machine's own network is not touched
Network.node()   a namespace with an address on that bridge; Node.argv(…) is the command that runs a program in it
Network.cut()    a fault between two nodes, or around one; heal() ends it

A namespace lives as long as a process in it: here `cat`, which ends when we do, however that happens. So nothing is left.
"""

import os
import subprocess

LOSS = "0.4"
SLOW = ("rate", "24kbit", "burst", "3000", "limit", "12000")  # a kilobyte waits for a third of a second; the queue holds 4 s
DIGITS = "10.77.0."


def why_not():
    """None, or why this machine cannot do it."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    done = subprocess.run(["unshare", "-n", "sh", "-c", "ip link add name b type bridge && ip link add name v type veth peer name w && "
                           "iptables -w -A INPUT -m statistic --mode random --probability 0.5 -j DROP && "
                           f"ip link set v up && tc qdisc add dev v root tbf {' '.join(SLOW)}"],
                          capture_output=True, text=True, check=False)
    return f"no network namespaces with a bridge, iptables and tbf here: {done.stderr.strip()}" if done.returncode else None


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)


class Node:
    def __init__(self, name, number=None):
        self.name = name
        self.address = DIGITS + str(number) if number else None
        self.holder = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdin.write(b"\n")  # what comes back comes from inside
        self.holder.stdin.flush()
        self.holder.stdout.read(1)
        self.argv_before = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]
        self.run("ip", "link", "set", "lo", "up")

    def argv(self, *argv):
        return [*self.argv_before, *argv]

    def run(self, *argv):
        run(*self.argv(*argv))

    def firewall(self, how, chain, address, *target):
        way = "-s" if chain == "INPUT" else "-d"
        self.run("iptables", "-w", how, chain, "-p", "tcp", way, address, *target)

    def close(self):
        self.holder.stdin.close()
        self.holder.wait(20)
        self.holder.stdout.close()


class Network:
    """Faults of a pair: drop (nothing passes), deaf (the first hears nothing), mute (it is not heard), reset (it is refused at
    once), lossy. Faults of one node: down (its cable is out), slow."""

    PAIR = ("drop", "deaf", "mute", "reset", "lossy")
    SINGLE = ("down", "slow")

    def __init__(self):
        self.hub, self.nodes = Node("hub"), {}
        self.hub.run("ip", "link", "add", "bridge", "type", "bridge")
        self.hub.run("ip", "link", "set", "bridge", "up")

    def node(self, name):
        node = Node(name, len(self.nodes) + 1)
        self.hub.run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", str(node.holder.pid))
        self.hub.run("ip", "link", "set", "dev", name, "master", "bridge", "up")
        node.run("ip", "address", "add", node.address + "/24", "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "up")
        self.nodes[name] = node
        return node

    @staticmethod
    def rules(kind, a, b):
        """(node, chain, other's address, target…) of a fault between two."""
        drop, lose = ("-j", "DROP"), ("-m", "statistic", "--mode", "random", "--probability", LOSS, "-j", "DROP")
        return {
            "drop": [(a, "INPUT", b, *drop), (b, "INPUT", a, *drop)],
            "deaf": [(a, "INPUT", b, *drop)],
            "mute": [(b, "INPUT", a, *drop)],
            "reset": [(a, "OUTPUT", b, "-j", "REJECT", "--reject-with", "tcp-reset"),
                      (b, "OUTPUT", a, "-j", "REJECT", "--reject-with", "tcp-reset")],
            "lossy": [(a, "INPUT", b, *lose), (b, "INPUT", a, *lose)],
        }[kind]

    def change(self, begin, kind, names):
        if kind == "down":
            self.hub.run("ip", "link", "set", "dev", names[0], "down" if begin else "up")
        elif kind == "slow":
            for where, device in ((self.hub, names[0]), (self.nodes[names[0]], "eth0")):
                where.run("tc", "qdisc", "add" if begin else "del", "dev", device, "root", *(("tbf", *SLOW) if begin else ()))
        else:
            for node, chain, other, *target in self.rules(kind, *(self.nodes[n] for n in names)):
                node.firewall("-A" if begin else "-D", chain, other.address, *target)

    def cut(self, kind, *names):
        self.change(True, kind, names)

    def heal(self, kind, *names):
        self.change(False, kind, names)

    def close(self):
        for node in (*self.nodes.values(), self.hub):
            node.close()
