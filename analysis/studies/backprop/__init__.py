"""The study ``backprop``: its readings, claims and figures."""
