"""QR codes as an inline SVG path, because the CSP allows no inline styles or scripts and no other origin."""

from __future__ import annotations

from dataclasses import dataclass

from qrcode import QRCode

QUIET_ZONE = 4


@dataclass(frozen=True)
class Drawing:
    """The side length in modules, quiet zone included, and the SVG path of the black modules."""

    side: int
    path: str


def drawing_of(text: str) -> Drawing:
    code = QRCode(border=QUIET_ZONE)
    code.add_data(text)
    rows = code.get_matrix()
    modules = [f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, is_black in enumerate(row) if is_black]
    return Drawing(side=len(rows), path="".join(modules))
