#!/usr/bin/env python3
"""Turns what `tmux capture-pane -e -N -p` prints into an SVG: svg.py COLUMNS < capture > picture.svg

Needs nothing but Python. Cells are placed by their column, so the picture does not depend on the
font that shows it.
"""

import html
import re
import sys
import unicodedata

CELL, ROW, SIZE, PAD = 8.4, 18, 14, 12
TEXT, PAPER = "#d5d9e0", "#13151a"
SIXTEEN = (
    "#1b1e25 #e08080 #8fbf8f #e0b66c #7aa2d6 #c49ad0 #86c5c2 #d5d9e0 "
    "#6b7280 #f09a9a #a5d6a5 #f0cd8a #98bdf0 #dab4e6 #a4dedb #ffffff"
).split()


def indexed(n):
    if n < 16:
        return SIXTEEN[n]
    if n >= 232:
        return "#" + f"{8 + 10 * (n - 232):02x}" * 3
    n -= 16
    level = lambda v: 0 if v == 0 else 55 + 40 * v
    return "#{:02x}{:02x}{:02x}".format(level(n // 36), level(n // 6 % 6), level(n % 6))


class Pen:
    def __init__(self):
        self.reset()

    def reset(self):
        self.fg = self.bg = None
        self.bold = self.dim = self.underline = self.reverse = False

    def take(self, codes):
        codes = [int(code or 0) for code in codes]
        while codes:
            code = codes.pop(0)
            if code == 0:
                self.reset()
            elif code == 1:
                self.bold = True
            elif code == 2:
                self.dim = True
            elif code == 22:
                self.bold = self.dim = False
            elif code in (4, 24):
                self.underline = code == 4
            elif code in (7, 27):
                self.reverse = code == 7
            elif code in (38, 48):
                kind = codes.pop(0)
                if kind == 5:
                    color = indexed(codes.pop(0))
                else:
                    color = "#{:02x}{:02x}{:02x}".format(*codes[:3])
                    del codes[:3]
                if code == 38:
                    self.fg = color
                else:
                    self.bg = color
            elif code == 39:
                self.fg = None
            elif code == 49:
                self.bg = None
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self.fg = SIXTEEN[code - 30 if code < 90 else code - 82]
            elif 40 <= code <= 47 or 100 <= code <= 107:
                self.bg = SIXTEEN[code - 40 if code < 100 else code - 92]

    def style(self):
        fg, bg = self.fg or TEXT, self.bg
        if self.reverse:
            fg, bg = bg or PAPER, self.fg or TEXT
        return fg, bg, self.bold, self.dim, self.underline


def width(char):
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def runs(line, pen):
    """(column, columns, text, style) of each piece of a line in one style."""
    column, found = 0, []
    for piece in re.split(r"(\x1b\[[0-9;:]*m)", line):
        code = re.fullmatch(r"\x1b\[([0-9;:]*)m", piece)
        if code:
            pen.take(code.group(1).replace(":", ";").split(";"))
        elif piece:
            columns = sum(map(width, piece))
            found.append((column, columns, piece, pen.style()))
            column += columns
    return found


def main():
    columns = int(sys.argv[1])
    lines = re.sub(r"\x1b[()][A-Z0-9]|[\x0e\x0f]", "", sys.stdin.read()).rstrip("\n").split("\n")
    wide, high = columns * CELL + 2 * PAD, len(lines) * ROW + 2 * PAD
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}" '
        f'font-family="ui-monospace, \'DejaVu Sans Mono\', Menlo, Consolas, monospace" font-size="{SIZE}">',
        f'<rect width="{wide:g}" height="{high:g}" rx="8" fill="{PAPER}"/>',
    ]
    pen = Pen()
    for row, line in enumerate(lines):
        y = PAD + row * ROW
        for column, count, text, (fg, bg, bold, dim, underline) in runs(line, pen):
            x, span = PAD + column * CELL, count * CELL
            if bg:
                out.append(f'<rect x="{x:g}" y="{y}" width="{span + 0.3:g}" height="{ROW + 0.3}" fill="{bg}"/>')
            if text.strip():
                marks = f' fill="{fg}"'
                marks += ' font-weight="bold"' if bold else ""
                marks += ' opacity="0.6"' if dim else ""
                marks += ' text-decoration="underline"' if underline else ""
                out.append(
                    f'<text x="{x:g}" y="{y + 13}" xml:space="preserve" textLength="{span:g}" '
                    f'lengthAdjust="spacingAndGlyphs"{marks}>{html.escape(text)}</text>'
                )
    out.append("</svg>")
    print("\n".join(out))


main()
