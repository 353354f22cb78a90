"""The figures and tables of the study ``sharded``: what each device takes and sends, over clusters and layouts."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.studies.sharded.readings import CARRY, KINDS, Line, lines
from analysis.style import COLOURS, GREY, MARKERS, Drawn, Table, filled, logs, look, styled
from analysis.view import View, at

MIB = 2**20
LAYOUTS = list(CARRY)
FALLING = ("full", "both")  # layouts that are drawn over the number of devices


def across(views: Sequence[View]) -> list[Table | Drawn]:
    """What each device takes, sends and computes, by cluster; nothing where no cluster was compiled for."""
    clusters = [view for view in views if view.devices > 1]
    largest = _largest(clusters)
    if not largest:
        return []
    with styled():
        drawn: list[Table | Drawn] = [
            Drawn(
                "frontier",
                "Memory of a device against what it sends, on the largest clusters",
                "What a step plans besides arguments and results, and the bytes that a device sends in it, at the "
                "largest depth: colours are layouts, markers are what is kept. Left and low is better; what lies to "
                "the upper right of another point of its colour is not worth it.",
                frontier(largest),
            )
        ]
        if len(_meshes(clusters)) > 1:
            drawn.append(
                Drawn(
                    "devices",
                    "Memory of a device by the number of devices",
                    "What a step plans besides arguments and results, at the largest depth, the batch divided over "
                    "all devices. Grey: in inverse proportion from the first.",
                    by_devices(clusters),
                )
            )
    return [*drawn, of_a_device(largest)]


def _largest(clusters: Sequence[View]) -> list[View]:
    """The largest cluster of each kind that is not here, or of all if there is no other."""
    found: dict[str, View] = {}
    for view in sorted(clusters, key=lambda view: view.devices):
        found[view.platform] = view
    return [view for kind, view in found.items() if kind != "cpu"] or list(found.values())


def _meshes(clusters: Sequence[View]) -> list[View]:
    """The clusters of the platform that has most of them, by devices."""
    by_platform: dict[str, list[View]] = {}
    for view in sorted(clusters, key=lambda view: view.devices):
        by_platform.setdefault(view.platform, []).append(view)
    return max(by_platform.values(), key=len)


def _points(view: View) -> Iterator[tuple[Line, int]]:
    """Every network and layout at its largest depth."""
    for line in lines(view):
        if line.depths:
            yield line, line.depths[-1]


def _networks(views: Sequence[View]) -> list[str]:
    return list(dict.fromkeys(line.network for view in views for line in lines(view)))


def frontier(views: Sequence[View]) -> Figure:
    """A panel a network and cluster."""
    networks, methods = _networks(views), views[0].methods
    figure = Figure(figsize=(5.4 * len(views), 4.0 * len(networks)), layout="constrained")
    axes = figure.subplots(len(networks), len(views), squeeze=False)
    for view, column in zip(views, axes.T, strict=True):
        for network, ax in zip(networks, column, strict=True):
            depth = 0
            for line, n in _points(view):
                if line.network != network:
                    continue
                depth = n
                for method in line.view.methods:
                    memory, sent = at(line.view.planned_bytes(method), n), line.number(method, "collectives", "sent", n)
                    if memory and sent:
                        colour = COLOURS[LAYOUTS.index(line.layout)]
                        ax.plot(memory / MIB, sent / MIB, MARKERS[methods.index(method)], color=colour, ls="", ms=7)
            logs(ax, "planned memory of a device (MiB)", "sent by a device (MiB)", f"{network} {depth}, {view.target}")
    said = [Line2D([], [], color=COLOURS[i], lw=4, label=layout) for i, layout in enumerate(LAYOUTS)]
    said += [Line2D([], [], color="black", marker=MARKERS[i], ls="", label=name) for i, name in enumerate(methods)]
    figure.legend(handles=said, loc="outside lower center", ncols=5)
    return figure


def by_devices(clusters: Sequence[View]) -> Figure:
    """A panel a network and layout, a line a method."""
    meshes = _meshes(clusters)
    networks = _networks(meshes)
    layouts = [layout for layout in FALLING if any(line.layout == layout for line in lines(meshes[0]))]
    figure = Figure(figsize=(5.4 * max(len(layouts), 1), 3.8 * len(networks)), layout="constrained")
    axes = figure.subplots(len(networks), max(len(layouts), 1), squeeze=False)
    for network, row in zip(networks, axes, strict=True):
        for layout, ax in zip(layouts, row, strict=False):
            found: dict[str, dict[int, float]] = {}
            for view in meshes:
                for line, n in _points(view):
                    if (line.network, line.layout) == (network, layout):
                        for method in line.view.methods:
                            memory = at(line.view.planned_bytes(method), n)
                            if memory:
                                found.setdefault(method, {})[view.devices] = memory / MIB
            for i, (method, by) in enumerate(found.items()):
                x = np.array(list(by))
                ax.plot(x, list(by.values()), label=method, **look(i))
                ax.plot(x, by[x[0]] * x[0] / x, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=0)
            logs(
                ax,
                "devices",
                "planned memory of a device (MiB)",
                f"{network}, {layout}, {meshes[0].target.partition(':')[0]}",
            )
            ax.set_xticks([view.devices for view in meshes], [str(view.devices) for view in meshes])
            ax.minorticks_off()
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    return figure


def of_a_device(views: Sequence[View]) -> Table:
    """A row a cluster, network, layout and method."""
    head = ("cluster", "network", "layout", "method", "planned (MiB)", "kept (MiB)", "GFLOP", "sent (MiB)", *KINDS)
    body = []
    for view in views:
        for line, n in _points(view):
            for method in line.view.methods:
                kept = [line.number(method, "lines", what, n) for what in ("residual of a loop", "slots of a schedule")]
                of_kinds = [line.number(method, "collectives", kind, n) for kind in KINDS]
                cells = [
                    _in(MIB, line.number(method, "compiler", "total", n)),
                    _in(MIB, sum(filter(None, kept)) if any(kept) else None),
                    _in(1e9, line.number(method, "collectives", "flops", n)),
                    _in(MIB, line.number(method, "collectives", "sent", n)),
                    *(_in(MIB, size) for size in of_kinds),
                ]
                body.append([view.target, line.network, line.layout, method, *cells])
    caption = (
        "At the largest depth. Planned: with arguments and results. Kept: residuals and slots, as the compiler tells. "
        "GFLOP: of products, in the compiled program. Then the bytes (MiB) of the values of each kind of "
        "collective, trips of loops included."
    )
    return filled(Table("What each device takes, computes and sends", caption, head, body))


def _in(unit: float, value: float | None) -> str:
    return "" if value is None else f"{value / unit:.3g}"
