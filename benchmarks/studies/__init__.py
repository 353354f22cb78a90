"""One file per question; see ``benchmarks.cases`` for what a study is made of.

Studies of your own need not live here: name their folders in the environment variable ``STUDIES_PATH``.
"""

import os

__path__ += filter(None, os.environ.get("STUDIES_PATH", "").split(os.pathsep))
