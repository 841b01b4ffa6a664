"""The bench report as text and picture: `report.json`, `report.md`, `rates.svg`."""

import json


def write(report, out):
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    drawn = draw(report, out / "rates.svg")
    (out / "report.md").write_text("\n".join(markdown(report, drawn)) + "\n")


def markdown(report, drawn):
    lines = ["# Bench report", ""]
    if report["quick"]:
        lines += ["**A quick run, to try. Its figures mean little.**", ""]
    lines += about(report) + not_run(report)
    lines += section(report, "limit", "The machine's limit", limit)
    lines += section(report, "hsm", "The HSM's ceiling", hsm)
    lines += issue(report)
    lines += rates(report, drawn)
    lines += section(report, "search", "The sustained rate", search)
    lines += section(report, "overload", "Overload", overload)
    lines += section(report, "fob issue", "A fleet's orders over HTTP", orders)
    lines += section(report, "stages", "By stage", stages)
    return lines


def about(report):
    machine, source = report["machine"], report["source"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    dirty = ", with changes" if source["changed"] else ""
    load = " ".join(f"{value:.2f}" for value in machine["load_before"])
    after = " ".join(f"{value:.2f}" for value in report["load_after"])
    rows = [
        ["date", source["date"]],
        ["commit", f"{source['commit']}{dirty}"],
        ["program", f"{source['version']}, built {source['built']}, {source['rustc']}"],
        ["command", f"`{source['command']}`"],
        ["machine", f"{kind}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"],
        ["system", f"{machine['system']}, Linux {machine['kernel']}, SoftHSM {machine['softhsm']}"],
        ["fsync", f"{machine['fsync_ms']} ms (4 KiB, median of 51, nothing else under way)"],
        ["load average", f"{load} before, {after} after (1, 5, 15 minutes)"],
    ]
    return table(["", ""], rows) + [
        "",
        "Load client, server and HSM share these cores. `$D` is a scratch issuer.",
        "",
    ]


def not_run(report):
    missing = [one for one in report["results"] if "not_run" in one]
    if not missing:
        return ["Everything was run.", ""]
    rows = [[one["name"], f"`{one['command']}`", one["not_run"]] for one in missing]
    return ["## Not run", ""] + table(["what", "command", "why"], rows) + [""]


def of(report, name):
    """The results of a name that were run."""
    return [one for one in report["results"] if one["name"] == name and "result" in one]


def section(report, name, title, body):
    found = of(report, name)
    if not found:
        return []
    return [f"## {title}", "", f"`{found[0]['command']}`", ""] + body(found[0]) + [""]


def limit(one):
    result = one["result"]
    text = result if isinstance(result, str) else json.dumps(result, indent=1)
    return ["```", text, "```"]


def hsm(one):
    result = one["result"]
    rows = [[run["sessions"], number(run["per_s"])] for run in result["runs"]]
    kind = "session copies" if result["session_key_copies"] else "token objects"
    return table(["sessions", "signatures a second"], rows) + ["", f"{result['algorithm']}, {kind}."]


def issue(report):
    found = [one for signing in ("each", "tree", "auto") for one in of(report, f"issue {signing}")]
    if not found:
        return []
    head = ["signing", "keys/s", "ceiling/s", "ratio", "HSM signatures", "commits", "p50 ms", "p99 ms"]
    rows = []
    for one in found:
        result = one["result"]
        figures = [number(result[name]) for name in ("keys_per_s", "ceiling_per_s")]
        figures += [f"{result['ratio']:.3f}"]
        figures += [number(result[name]) for name in ("hsm_signatures", "commits")]
        figures += [f"{result[name]:.1f}" for name in ("p50_ms", "p99_ms")]
        rows.append([result["signing"], *figures])
    commands = [f"`{one['command']}`  " for one in found]
    return ["## Issuing", "", *commands, ""] + table(head, rows) + [""]


def rates(report, drawn):
    found = of(report, "rate")
    if not found:
        return []
    head = ["offered/s", "sustained/s", "keys/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"]
    head += ["refused", "dropped", "unanswered", "server µs/bundle", "client µs/arrival", "others' CPUs"]
    rows = []
    for one in found:
        result = one["result"]
        phase, latency = result["phases"][0], result["phases"][0]["admitted"]
        names = ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
        rows.append(
            [number(phase["offered_per_s"]), number(phase["sustained_per_s"])]
            + [number(8 * phase["sustained_per_s"])]
            + [f"{latency[name]:.1f}" for name in names]
            + [phase["refused"]["count"], phase["dropped"], phase["timed_out"] + phase["broken"]]
            + [number(result["server"]["cpu_us_per_bundle"])]
            + [number(result["client"]["cpu_us_per_arrival"]), f"{result['others_cpus']:.2f}"]
        )
    text = ["## Redemptions over HTTP, by rate", ""]
    text += [f"`{found[0]['command']}`, and so on for each rate.", ""]
    text += ["Bundles of 8 keys. Latencies count from when an arrival was due.", ""]
    text += table(head, rows) + [""]
    text += ["Where the server's CPU goes, in µs for each bundle, by thread:", ""]
    text += threads(found) + [""]
    text += ["![rates](rates.svg)", ""] if drawn is None else [f"No picture: {drawn}", ""]
    return text


def threads(found):
    names = sorted({name for one in found for name in one["result"]["server"]["cpu_s_by_thread"]})
    rows = []
    for one in found:
        phase, spent = one["result"]["phases"][0], one["result"]["server"]["cpu_s_by_thread"]
        # The warm-up's bundles took their share.
        bundles = sum(second["admitted"] for second in one["result"]["timeline"])
        cells = [number(spent.get(name, 0) * 1e6 / bundles if bundles else None) for name in names]
        rows.append([number(phase["offered_per_s"]), *cells])
    return table(["offered/s", *names], rows)


def search(one):
    result = one["result"]
    rows = []
    for run in result["runs"]:
        phase = run["phases"][0]
        rows.append(
            [number(run["rate_per_s"]), "holds" if run["holds"] else "too much"]
            + [f"{phase['admitted']['p99_ms']:.1f}", phase["refused"]["count"], phase["dropped"]]
            + [f"{run['others_cpus']:.2f}"]
        )
    text = f"**{number(result['sustained_per_s'])} redemptions a second** ({number(result['keys_per_s'])} keys): "
    text += f"the highest rate tried at which nothing was dropped or refused and p99 stayed under {result['p99_ms_max']:.0f} ms."
    head = ["rate/s", "", "p99 ms", "refused", "dropped", "others' CPUs"]
    return [text, ""] + table(head, rows)


def overload(one):
    result = one["result"]
    back = result["recovered_after_s"]
    rows = [
        ["p99 of the admitted in the burst", f"{result['burst_admitted_p99_ms']:.1f} ms"],
        ["bundles a second in the burst", number(result["burst_bundles_per_s"])],
        ["refused in the burst", number(result["burst_refused"])],
        ["all refusals are 503 with Retry-After", "yes" if result["all_refusals_say_when"] else "NO"],
        ["highest p99 of a second before", f"{result['calm_p99_ms']:.1f} ms"],
        ["back to it after", "never, while it was watched" if back is None else f"{back} s"],
        ["memory before, most, after", " → ".join(memory(result))],
        ["valid", "yes" if result["valid"] else "NO: " + "; ".join(result["invalid_because"])],
        ["remarks", "; ".join(result["remarks"]) or "none"],
    ]
    columns = ("second", "arrivals", "admitted", "answered_503", "other", "bundles", "p50_ms", "p99_ms")
    columns += ("rss_mib", "cpus", "queue")
    line = [[shown(second[name]) for name in columns] for second in result["timeline"]]
    return table(["", ""], rows) + ["", *table(list(columns), line)]


def memory(result):
    names = ("rss_before_mib", "rss_most_mib", "rss_after_mib")
    return [f"{shown(result['server'][name])} MiB" for name in names]


def orders(one):
    counted = one.get("counted")
    if not counted:
        return ["It wrote no bundles."]
    return table(list(counted), [[number(value) for value in counted.values()]])


def stages(one):
    rows = []
    for row in one["result"]:
        spread = f"{duration(row['from_ns'])} to {duration(row['to_ns'])}"
        rows.append([row["group"], row["what"], duration(row["median_ns"]), spread, row["measured"]])
    return table(["group", "what", "median", "95 %", "measured"], rows)


# --- Text -----------------------------------------------------------------------


def table(head, rows):
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [head, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def number(value):
    if value is None:
        return "–"
    # Three figures at least, and no more digits than a rate can mean.
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"


def shown(value):
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def duration(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


# --- Picture ----------------------------------------------------------------------


def draw(report, path):
    """Throughput and p99 against the arrival rate. Returns why there is no picture, or None."""
    found = [one["result"]["phases"][0] for one in of(report, "rate")]
    if not found:
        return "no rate was run"
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is not installed"
    matplotlib.use("svg")
    # No date and no random ids: the same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "fob"
    import matplotlib.pyplot as plot

    offered = [phase["offered_per_s"] for phase in found]
    figure, (above, below) = plot.subplots(2, 1, sharex=True, figsize=(8, 7))
    above.plot(offered, offered, color="0.7", linestyle="--", label="offered")
    above.plot(offered, [phase["sustained_per_s"] for phase in found], marker="o", label="sustained")
    above.set_ylabel("redemptions a second")
    for name, label in (("p50_ms", "p50"), ("p99_ms", "p99"), ("p99_9_ms", "p99.9")):
        below.plot(offered, [phase["admitted"][name] for phase in found], marker="o", label=label)
    below.set_yscale("log")
    below.set_ylabel("ms from when it was due")
    below.set_xlabel("arrivals a second")
    for axes in (above, below):
        axes.set_ylim(bottom=0 if axes is above else None)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plot.close(figure)
    return None
