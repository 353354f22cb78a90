"""The study ``closed_forms``: its readings, claims and figures."""
