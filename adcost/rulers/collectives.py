"""The ruler ``collectives``: what each device of a sharded program sends to others and computes, by its compiler."""

from collections.abc import Iterator

from adcost.collectives import by_kind, collectives_of
from adcost.rulers.subject import Subject
from adcost.suite.vocabulary import NotMeasured, Number
from adcost.targets.collectives import communication
from adcost.targets.compiling import mesh_of


def take(subject: Subject) -> Iterator[Number]:
    """Flops of a device's products, the mesh, bytes that a device sends, and those of the values of each collective.

    Of studies that are measured on clusters.
    """
    target, executable = subject.target, subject.executable
    if not subject.study.clusters or executable is None:
        return
    found = communication(executable.compiled.as_text(), target.devices)
    if found.flops is not None:
        yield Number("collectives", target.name, "flops", "flop", found.flops)
    said = collectives_of(found, ())
    if said is None:
        raise NotMeasured("a loop of the compiled program has no known trip count")
    mesh = mesh_of(subject.shapes)
    for name, size in () if mesh is None else mesh.shape.items():
        yield Number("collectives", target.name, f"{name} axis", "devices", float(size))
    if target.devices > 1:
        yield Number("collectives", target.name, "sent", "B", float(sum(one.sent for one in said)))
        for kind, size in by_kind(said).items():
            yield Number("collectives", target.name, kind, "B", float(size))
