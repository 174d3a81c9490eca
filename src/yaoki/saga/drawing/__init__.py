"""A saga's graph as a picture: boxes for a terminal, SVG, Mermaid, DOT; plain, or with where each step of a run is.

    print(boxes(saga.graph, width=100))
    svg(saga.graph, looks_of(machine))            # a run, coloured

`layers.py` (who stands in which layer, in which order) and `placing.py` (where exactly) are the layout, and know
nothing of sagas; `routing.py` draws the lines between two layers of boxes. All of it is pure.
"""

from yaoki.saga.drawing.boxes import boxes
from yaoki.saga.drawing.look import Look, look_of, looks_of, plain_looks
from yaoki.saga.drawing.markup import dot, mermaid
from yaoki.saga.drawing.svg import svg

__all__ = ["Look", "boxes", "dot", "look_of", "looks_of", "mermaid", "plain_looks", "svg"]
