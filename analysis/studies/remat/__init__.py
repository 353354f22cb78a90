"""The study ``remat``: its readings and figures."""
