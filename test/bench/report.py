"""Rows, bars, the table that people read and the file that machines read."""

import json
from dataclasses import dataclass, field

COLUMNS = [  # key, title, width, digits
    ("requests_per_s", "requests/s", 10, 0), ("cpu_us", "CPU us", 9, 2), ("cpu_ratio_to_nginx", "ratio", 6, 3),
    ("p50_us", "p50 us", 8, 0), ("p99_us", "p99 us", 8, 0), ("rss_kib", "peak KiB", 8, 0),
    ("added_p50_us", "added p50 us", 12, 1), ("cpu_s_per_gib", "CPU s/GiB", 9, 3),
    ("handshakes_per_cpu_s", "handshakes/CPU s", 16, 0), ("idle_bytes_per_connection", "bytes/idle conn.", 16, 0),
    ("bytes_per_session", "bytes/session", 13, 0), ("seconds", "seconds", 8, 3),
]


@dataclass
class Bar:
    """A promise of the product and what became of it."""
    what: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self):
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def text(self):
        sign, verdict = ">=" if self.at_least else "<=", "met" if self.met else "MISSED"
        return f"{self.what}: {self.value:.3g} (bar {sign} {self.limit:g}) {verdict}"

    def record(self):
        return {"what": self.what, "value": round(self.value, 3), "limit": self.limit,
                "at_least": self.at_least, "met": self.met}


@dataclass
class Result:
    case: str
    title: str
    rows: list = field(default_factory=list)  # of dict
    bars: list = field(default_factory=list)  # of Bar
    error: str = ""

    def add(self, system, **figures):
        self.rows.append({"case": self.case, "system": system, **figures})

    def records(self):
        """As build/bench.json has them: the bars are with Postern's row."""
        if self.error:
            return [{"case": self.case, "system": "postern", "error": self.error}]
        bars = [bar.record() for bar in self.bars]
        return [{**row, "bars": bars} if bars and row["system"] == "postern" else row for row in self.rows]

    def text(self):
        lines = [f"\n{self.case}: {self.title}"]
        if self.error:
            return "\n".join([*lines, "  FAILED " + self.error.replace("\n", "\n  ")])
        shown = [c for c in COLUMNS if any(c[0] in row for row in self.rows)]
        lines.append(f"  {'system':20}" + "".join(f" {title:>{width}}" for _, title, width, _ in shown))
        for row in self.rows:
            cells = (f"{row[key]:{width}.{digits}f}" if key in row else " " * width for key, _, width, digits in shown)
            lines.append(f"  {row['system']:20}" + "".join(" " + cell for cell in cells) + "  " + row.get("note", ""))
        lines += [f"  {bar.text()}" for bar in self.bars]
        return "\n".join(line.rstrip() for line in lines)


def summary(results):
    bars = [bar for result in results for bar in result.bars]
    failed = [result.case for result in results if result.error]
    text = f"\n{sum(bar.met for bar in bars)} of {len(bars)} bars met"
    for result in results:
        text += "".join(f"\n  {result.case}: {bar.text()}" for bar in result.bars if not bar.met)
    return text + (f"\nno figures, because they failed: {', '.join(failed)}" if failed else "")


def write(path, results):
    with open(path, "w") as f:
        json.dump([record for result in results for record in result.records()], f, indent=1)
        f.write("\n")
