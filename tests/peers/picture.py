"""The table of the peers as a picture: processor time of a step against bytes, marked by what a kill leaves."""

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

LEFT = {
    "right rows only, after every kill": ("o", "#0072B2"),
    "right rows only, nothing after some kills": ("D", "#56B4E9"),
    "wrong rows shown as data": ("X", "#D55E00"),
    "nothing, after every kill": ("x", "#555555"),
}


def draw(rows, path):
    """Write the picture: a number for each way, and beside it the names."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 4.8), layout="constrained")
        axes, names = figure.subplots(1, 2, width_ratios=(3, 2))
        names.axis("off")
        for number, (name, row) in enumerate(rows.items(), 1):
            x, y = row["cpu_ms"], 1 / row["ratio"]
            marker, colour = LEFT[left(row)]
            axes.plot(x, y, marker, color=colour, markersize=8)
            offset = (7, 4) if number % 2 else (-7, -13)
            axes.annotate(str(number), (x, y), xytext=offset, textcoords="offset points")
            names.text(0, 1 - 0.68 * number / len(rows), f"{number}  {name}", va="center")
        for words, (marker, colour) in LEFT.items():
            names.plot([], [], marker, color=colour, label=words)
        axes.set(
            xscale="log", yscale="log", xlabel="processor time of a step, ms", ylabel="bytes stored of a raw byte",
            title="Lower left is better", xticks=[2, 4, 8, 16], yticks=[0.03, 0.1, 0.3, 1],
        )  # fmt: skip
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(x=0.15, y=0.15)
        names.set(xlim=(0, 1), ylim=(0, 1))
        names.legend(title="what a kill leaves", loc="lower left", frameon=False, alignment="left")
        figure.savefig(path, dpi=110)


def left(row):
    """What the kills of a way have left, in words."""
    kinds = list(LEFT)
    if row["wrong"]:
        return kinds[2]
    return kinds[3] if not row["kept"] else kinds[1] if row["closed"] else kinds[0]
