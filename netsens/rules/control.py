"""If, Loop and Scan: their derivative is the same construct over again with a derivative inside, which `modes/control.py` builds, since
what they compute stands in their subgraphs."""

from netsens.rules.words import RULES, Rule

for _name in ("If", "Loop", "Scan"):
    RULES["", _name] = Rule(_name, why="its subgraphs are differentiated")
