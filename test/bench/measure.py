"""From loads to figures: what one run cost, rounds in alternating order, ratios within a round."""

import statistics


def cost(system, load):
    """One load (a function of the system that returns n answers in s seconds) and what it cost. What it left open for
    "close" to close is no part of that."""
    before, parts = system.cpu_ns(), system.part_ns()
    got = load(system)
    after, parts_after = system.cpu_ns(), system.part_ns()
    got.pop("close", lambda: None)()
    each = {f"{name}_us": (parts_after[name] - ns) / 1000 / got["n"] for name, ns in parts.items()}
    return {**got, **each, "requests_per_s": got["n"] / got["s"], "cpu_us": (after - before) / 1000 / got["n"]}


def rounds(systems, load, n):
    """n rounds over all systems, every other one backwards: {name: [figures of a round, …]}."""
    runs = {system.name: [] for system in systems}
    for i in range(n):
        for system in systems if i % 2 == 0 else reversed(systems):
            runs[system.name].append(cost(system, load))
    return runs


def trimmed_mean(values):
    """Without the tenth at either end: what something else did to a round or two counts for nothing."""
    inner = sorted(values)
    cut = len(inner) // 10
    return statistics.mean(inner[cut:len(inner) - cut])


def middle(runs):
    """The median of each figure."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def ratio(mine, base, key="cpu_us"):
    """The median of the ratios within each round, where the machine was in one mood."""
    return statistics.median(m[key] / b[key] for m, b in zip(mine, base))
