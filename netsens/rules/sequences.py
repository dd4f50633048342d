"""Sequences and optionals. Those whose tensors are known before the model runs are gone by the time that rules are asked (`graph/sequences.py`); the others
are refused."""

from netsens.rules.words import flat, refuse

refuse(
    "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceMap SplitToSequence ConcatFromSequence Optional OptionalGetElement",
    why="which tensors its sequence or optional holds is known only while the model runs (where it is known before, they take its place); "
    "use Concat, Split and Gather instead, or give the input a fixed shape",
)
flat("SequenceLength OptionalHasElement", why="it counts")
