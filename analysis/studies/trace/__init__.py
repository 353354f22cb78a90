"""The study ``trace``: its readings, claims and figures."""
