"""The worked example: its computational graph, and both evaluation traces as tables."""

from collections.abc import Sequence

import networkx as nx

from adcost.evaluation_trace import Node, adjoint_sums
from analysis.studies.worked_example.claims import AT, nodes
from analysis.style import COLOURS, Drawn, Table, panels, styled
from analysis.view import View


def figures(view: View) -> list[Drawn]:
    """The graph of the function."""
    found = nodes(view)
    with styled():
        return [graph(found)] if found else []


def tables(view: View) -> list[Table]:
    """Both traces."""
    found = nodes(view)
    return traces(found) if found else []


def graph(found: Sequence[Node]) -> Drawn:
    """The graph, from inputs on the left to the result: values in the nodes, local derivatives on the edges."""
    drawn = nx.DiGraph()
    for node in found:
        drawn.add_node(node.name)
        drawn.add_edges_from((name, node.name, {"derivative": f"{d:.3g}"}) for name, d in node.operands)
    layers = {i: sorted(names, reverse=True) for i, names in enumerate(nx.topological_generations(drawn))}
    places = nx.multipartite_layout(drawn, subset_key=layers)  # the first is lowest
    figure, (ax,) = panels(1, 4.2)
    figure.set_size_inches(8.4, 4.2)
    written = {node.name: f"{node.name} = {node.expression}" if node.operands else node.name for node in found}
    labels = {node.name: f"{written[node.name]}\n{node.value:.4g}" for node in found}
    nx.draw_networkx_nodes(drawn, places, ax=ax, node_size=4200, node_color="white", edgecolors=COLOURS[0])
    nx.draw_networkx_labels(drawn, places, labels, ax=ax, font_size=8)
    nx.draw_networkx_edges(drawn, places, ax=ax, node_size=4200, arrowsize=14)
    derivatives = nx.get_edge_attributes(drawn, "derivative")
    words = {"font_size": 8, "font_color": COLOURS[1], "rotate": False}
    nx.draw_networkx_edge_labels(drawn, places, derivatives, label_pos=0.68, ax=ax, **words)  # beside crossings
    ax.margins(0.16)
    ax.set_axis_off()
    return Drawn(
        "worked-example",
        "The worked example: f(x1, x2) = x1 x2 + sin x1",
        "The computational graph, drawn from the program (the lecture's figure 3), with the values at "
        f"x = {AT}; on the edges the derivative of the node with respect to its operand. Forward mode multiplies along "
        "the edges from the left, once for each input; reverse mode from the right, once for all inputs.",
        figure,
    )


def traces(found: Sequence[Node]) -> list[Table]:
    """The forward and the reverse trace."""
    inputs = [node.name for node in found if not node.operands]
    forward = [
        [
            node.name,
            node.expression if node.operands else "input",
            f"{node.value:.6g}",
            *map("{:.6g}".format, node.tangents),
        ]
        for node in found
    ]
    adjoints = {node.name: node.adjoint for node in found}
    reverse = [[name, how, f"{adjoints[name]:.6g}"] for name, how in adjoint_sums(list(found))]
    return [
        Table(
            "The worked example, forward mode",
            "A column a seed: one pass for each input gives one derivative of the result, in the last row.",
            ("node", "operation", "value", *(f"tangent, seed {name}" for name in inputs)),
            forward,
        ),
        Table(
            "The worked example, reverse mode",
            "From the last row of the forward pass back: one pass gives the derivatives by all inputs, and needs the "
            "values of the forward pass for its local derivatives. A bar marks an adjoint.",
            ("node", "adjoint is the sum over its users", "adjoint"),
            reverse,
        ),
    ]
