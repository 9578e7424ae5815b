"""The table of the peers as a picture: processor time of a step against bytes, marked by what a kill leaves."""

import matplotlib as mpl
from matplotlib.figure import Figure


def draw(rows, path):
    """Write the picture."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for name, row in rows.items():
            safe = row["kept"] and not row["wrong"] and not row["closed"]
            x, y = row["cpu_ms"], 1 / row["ratio"]
            axes.plot(x, y, "o" if safe else "x", color="#0072B2" if safe else "#D55E00", markersize=8)
            axes.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points")
        axes.set(
            xscale="log", yscale="log", xlabel="processor time of a step (ms)", ylabel="bytes stored of a raw byte"
        )
        axes.margins(x=0.25, y=0.1)
        axes.set_title("Lower left is better. Dot: all kills left right rows only; cross: wrong rows, or no file")
        figure.savefig(path, dpi=110)
