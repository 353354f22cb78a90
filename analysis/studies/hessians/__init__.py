"""The study ``hessians``: its readings, claims and figures."""
