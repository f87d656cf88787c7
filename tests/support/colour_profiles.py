"""Small ICC profiles, made by hand after ICC.1 (version 2.1)."""

from __future__ import annotations

import struct

# rows: red, green, blue in XYZ, adapted to D50
ADOBE_RGB = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)
DISPLAY_P3 = (0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)
SRGB = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)
D50 = (0.9642, 1.0, 0.82491)
SRGB_STEPS = 1024  # of its curve, which is no power


def srgb_curve() -> list[int]:
    """The curve of sRGB and of Display P3, light for a number, as 16 bits."""
    numbers = (step / (SRGB_STEPS - 1) for step in range(SRGB_STEPS))
    light = (n / 12.92 if n <= 0.04045 else ((n + 0.055) / 1.055) ** 2.4 for n in numbers)
    return [round(65535 * value) for value in light]


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def _curve(gamma: float | list[int]) -> bytes:
    steps = gamma if isinstance(gamma, list) else [round(256 * gamma)]
    return b"curv\0\0\0\0" + struct.pack(f">I{len(steps)}H", len(steps), *steps)


def _pack(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"by hand\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0" + text,
        b"wtpt": _xyz(D50),
        **tags,
    }
    table, body, place = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = place + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, kind, space, connection)
    header += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def rgb_profile(primaries, gamma: float | list[int], **more: bytes) -> bytes:
    """A display with these primaries; `more` are further tags, which nobody knows."""
    tags = {f"{c}XYZ".encode(): _xyz(p) for c, p in zip("rgb", primaries, strict=True)}
    tags |= {f"{c}TRC".encode(): _curve(gamma) for c in "rgb"}
    tags |= {name.encode(): content for name, content in more.items()}
    return _pack(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    """A grey display."""
    return _pack(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _curve(gamma)})


def cmyk_profile(corners) -> bytes:
    """A printer: its 16 mixtures of none and all of each ink in Lab, black changing fastest.

    Args:
        corners: L from 0 to 100, a and b from -128 to 127, of each.
    """
    lab = [
        round(value)
        for lightness, a, b in corners
        for value in (lightness * 652.8, (a + 128) * 256, (b + 128) * 256)
    ]
    straight = struct.pack(">2H", 0, 65535)
    table = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9))) + struct.pack(
        ">2H", 2, 2
    )
    table += 4 * straight + struct.pack(f">{len(lab)}H", *lab) + 3 * straight
    return _pack(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})
