"""What a flag of JAX changes is a table of its own, with what was refused."""

import pandas as pd

from adcost.suite.vocabulary import described
from analysis import frame, variants
from analysis.frame import Results
from analysis.view import views
from benchmarks import all_studies

CASE = {"study": "remat", "depth": 64, "width": 64, "batch": 1024, "dtype": "float32", "target": "cpu"}
ORIGIN = {"source": "synthetic", "commit": "0", "jax": "0", "python": "3", "machine": "none"}

TOLD = described(all_studies().values())


def number(method, ruler, quantity, value, low=None, high=None):
    fields = {"ruler": ruler, "quantity": quantity, "unit": "", "value": value, "low": low, "high": high}
    return {**CASE, **ORIGIN, **fields, "method": method, "repeats": 1, "flags": (), "at": ()}


def test_a_variant_stands_beside_its_method():
    rows = [
        number("scan_remat", "compiler", "temp", 2**21),
        number("scan_remat3", "compiler", "temp", 2**20),
        number("scan_remat", "count", "flops", 100),
        number("scan_remat3", "count", "flops", 90),
        number("scan_remat3", "clock", "time / scan_remat", 0.9, 0.8, 1.0),
    ]
    gap = {**CASE, **ORIGIN, "method": "unrolled_remat3", "ruler": "compiler", "reason": "TypeError: refused"}
    (view,) = views(Results(frame._frame(rows), pd.DataFrame([gap]), pd.DataFrame(), {}, TOLD))
    table = variants.table(view)
    assert table.title == "What jax_remat3 changes"
    measured, refused = table.rows
    assert measured == ["scan_remat3", "depth 64, width 64, batch 1024", "1.00", "2.00", "0.900", "0.90 [0.80, 1.00]"]
    assert refused[:3] == ["unrolled_remat3", "", "not measured: TypeError: refused"]
    assert "scan_remat3 (depth 64" in table.caption


def test_a_study_without_variants_has_no_such_table():
    (view,) = views(
        Results(frame._frame([number("scan", "compiler", "temp", 1)]), pd.DataFrame(), pd.DataFrame(), {}, TOLD)
    )
    assert variants.table(view) is None
