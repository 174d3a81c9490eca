"""A few shapes of SVG, as text. Colours are classes, so that a picture looks right on light pages and on dark ones."""

from __future__ import annotations

from html import escape

# Class: (colour on a light page, on a dark one).
COLOURS = {
    "page": ("#ffffff", "#10161d"), "ink": ("#1f2933", "#e6edf3"), "faint": ("#6b7785", "#93a1b0"), "grid": ("#e3e8ed", "#26303b"),
    "good": ("#1b7f5c", "#3fb68b"), "bad": ("#b4232a", "#f0645f"), "warn": ("#b5651d", "#e0a05a"), "beat": ("#7a8da1", "#8499ae"),
    "on": ("#ffffff", "#10161d"), "quiet": ("#d5ebe1", "#17372d"), "flowing": ("#a9d8c4", "#1f5242"), "stuck": ("#f2b8b5", "#5b2326"),
    "skipped": ("#f3dfc1", "#4d3a1e"), "unknown": ("#e6e9ed", "#2a333d")}

FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif"


def picture(width: float, height: float, title: str, shapes: list[str]) -> str:
    """A whole SVG file. `title`: read to those who cannot see it."""
    return "\n".join([
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
         f'font-family="{FONT}" role="img">'),
        f"<title>{escape(title)}</title>", f"<style>{_style()}</style>",
        f'<rect width="{width:g}" height="{height:g}" rx="12" class="page"/>', *shapes, "</svg>"]) + "\n"


def _style() -> str:
    light = "".join(f".{name}{{fill:{pair[0]}}}.{name}-line{{stroke:{pair[0]};fill:none}}" for name, pair in COLOURS.items())
    dark = "".join(f".{name}{{fill:{pair[1]}}}.{name}-line{{stroke:{pair[1]};fill:none}}" for name, pair in COLOURS.items())
    return f"{light}@media (prefers-color-scheme:dark){{{dark}}}"


def text(x: float, y: float, words: str, colour: str = "ink", *, size: float = 13, weight: int = 400, anchor: str = "start") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" class="{colour}" font-size="{size:g}" font-weight="{weight}" text-anchor="{anchor}">'
            f"{escape(words)}</text>")


def line(x1: float, y1: float, x2: float, y2: float, colour: str = "grid", *, width: float = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="{colour}-line" stroke-width="{width:g}" stroke-linecap="round"{dashed}/>'


def fall(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 2, dash: str = "") -> str:
    """A line from above to below that leaves and arrives upright."""
    middle = (y1 + y2) / 2
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (f'<path d="M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}" class="{colour}-line" '
            f'stroke-width="{width:g}" stroke-linecap="round"{dashed}/>')


def turn(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """A dashed line that leaves sideways and arrives upright."""
    return f'<path d="M{x1:.1f} {y1:.1f}Q{x2:.1f} {y1:.1f} {x2:.1f} {y2:.1f}" class="{colour}-line" stroke-width="1.6" stroke-dasharray="4 5"/>'


def bar(x1: float, y: float, x2: float, height: float, colour: str, *, title: str = "", opacity: float = 1) -> str:
    """A bar from x1 to x2 around y."""
    said = f"<title>{escape(title)}</title>" if title else ""
    return (f'<rect x="{x1:.1f}" y="{y - height / 2:.1f}" width="{max(x2 - x1, 2):.1f}" height="{height:g}" rx="{min(height / 2, 5):g}" '
            f'class="{colour}" opacity="{opacity:g}">{said}</rect>')


def dot(x: float, y: float, label: str, colour: str, *, radius: float = 11) -> str:
    return (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{colour}"/>'
            + text(x, y + radius * 0.4, label, "on", size=radius * 1.15, weight=700, anchor="middle"))


def cross(x: float, y: float, colour: str, *, size: float = 5, width: float = 2.4) -> str:
    return (line(x - size, y - size, x + size, y + size, colour, width=width)
            + line(x - size, y + size, x + size, y - size, colour, width=width))
