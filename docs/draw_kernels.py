"""Draws the pictures of docs/kernels.md, in both languages: python docs/draw_kernels.py"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
INK, GREY, LINE = "#1f2d3a", "#52616e", "#9aa7b2"
FULL, MIXED, EMPTY, ACCENT = "#0f766e", "#7fc8bf", "#eef1f4", "#c2570c"
WORDS = {
    "tiles": "Tiles of a mask|掩码的块",
    "tiles title": "Causal() &amp; Window(23): 48 queries, 48 keys|Causal() &amp; Window(23)：48 个查询，48 个键",
    "full": "full: no pair is asked about|全满：不对任何一对提问",
    "mixed": "mixed: one machine word a key|混合：每个键一个机器字",
    "empty": "empty: not visited|空：不访问",
    "tiles of": "{} tiles|{} 块",
    "tile size": "A tile here is 4 queries × 8 keys;|这里一块是 4 个查询 × 8 个键；",
    "real size": "in the kernels 32 × 256.|内核中是 32 × 256。",
    "lanes": "Queries in the lanes of a vector|查询放在向量的通道里",
    "lanes title": "S[j, i] += K[j, d] · Q[d, i]: queries i are the lanes|S[j, i] += K[j, d] · Q[d, i]：通道是查询 i",
    "one": "one number of K|K 的一个数",
    "copied": "copied|复制",
    "column": "column d of Q|Q 的第 d 列",
    "row": "row j of S|S 的第 j 行",
    "down": "The softmax runs down each lane: nothing is added across lanes.|softmax 沿每个通道进行：不跨通道相加。",
    "bit": "A hidden pair is one bit of the lane mask.|隐藏的一对是通道掩码的一位。",
    "chunks": "Tiles and chunks of keys|键的块与段",
    "chunks title": "One row of queries over 2,816 keys, from position 0|一行查询对 2,816 个键，从位置 0 开始",
    "tiles are": "tiles of 256 keys: the maximum, then one FMA a key, ascending"
    "|每块 256 个键：先求最大值，再按升序每键一次 FMA",
    "chunk": "chunk {}: (top, sum, out)|第 {} 段：(top, sum, out)",
    "chunks are": "chunks of 1024 keys: a softmax each, on any thread|每段 1024 个键：各自一个 softmax，在任意线程上",
    "merged": "merged in ascending order, on any number of threads|按升序合并，与线程数无关",
    "cache": "Keys in a cache: sixteen tokens side by side|缓存中的键：十六个词元并排",
    "tokens": "tokens {} … {}|词元 {} … {}",
    "load": "One load gives number d of sixteen keys, one FMA adds it to sixteen scores."
    "|一次载入得到十六个键的第 d 个数，一次 FMA 把它加到十六个得分上。",
    "chain": "The chain over d is that of a forward pass, so the bits are, too.|沿 d 的链与前向相同，所以位也相同。",
}


class Drawing:
    """Shapes in the order in which they are added; `say` looks its words up in the drawing's language."""

    def __init__(self, name: str, height: int, language: int) -> None:
        self.name, self.height, self.language = name, height, language
        self.parts: list[str] = []

    def words(self, key: str, *numbers: object) -> str:
        return WORDS[key].split("|")[self.language].format(*numbers)

    def text(self, x: float, y: float, text: str, fill: str = INK, size: int = 13, anchor: str = "start") -> None:
        place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}" font-size="{size}"'
        self.parts.append(f"<text {place}>{text}</text>")

    def box(self, x: float, y: float, w: float, h: float, fill: str, stroke: str = "#ffffff") -> None:
        size = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"'
        self.parts.append(f'<rect {size} fill="{fill}" stroke="{stroke}"/>')

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
        self.parts.append(f'<line {ends} stroke="{LINE}" marker-end="url(#a)"/>')

    def save(self) -> None:
        head = '<path d="M0 0L8 4L0 8z" fill="#9aa7b2"/>'
        marker = (
            f'<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">{head}'
        )
        box = f'viewBox="0 0 650 {self.height}" width="650" height="{self.height}"'
        opened = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" font-family="system-ui, sans-serif">'
        defs = f"<title>{self.words(self.name)}</title>\n<defs>{marker}</marker></defs>"
        paper = f'<rect width="650" height="{self.height}" rx="6" fill="#ffffff"/>'
        folder = HERE / ("zh/images" if self.language else "images")
        folder.mkdir(exist_ok=True)
        whole = "\n".join([opened, defs, paper, *self.parts, "</svg>\n"])
        (folder / f"{self.name}.svg").write_text(whole, encoding="utf-8")


def tiles(language: int) -> Drawing:
    """A causal window, cut into tiles of 4 rows and 8 keys, a token 7 units wide."""
    made, left, top, unit, back = Drawing("tiles", 384, language), 20, 34, 7, 23
    made.text(20, 22, made.words("tiles title"))
    counts = {"full": 0, "mixed": 0, "empty": 0}
    frames = []
    for row in range(0, 48, 4):
        for key in range(0, 48, 8):
            seen = {p: [j for j in range(key, key + 8) if p - back <= j <= p] for p in range(row, row + 4)}
            pairs = sum(map(len, seen.values()))
            counts["full" if pairs == 32 else "mixed" if pairs else "empty"] += 1
            place = (left + key * unit, top + row * unit, 8 * unit, 4 * unit)
            made.box(*place, FULL if pairs == 32 else EMPTY)
            if 0 < pairs < 32:
                frames.append(place)
                for p, keys in seen.items():
                    if keys:
                        made.box(left + keys[0] * unit, top + p * unit, len(keys) * unit, unit, MIXED, MIXED)
    for place in frames:
        made.box(*place, "none", ACCENT)
    for i, (kind, fill) in enumerate((("full", FULL), ("mixed", MIXED), ("empty", EMPTY))):
        made.box(390, 60 + i * 46, 26, 26, fill, ACCENT if kind == "mixed" else LINE)
        made.text(426, 72 + i * 46, made.words(kind))
        made.text(426, 89 + i * 46, made.words("tiles of", counts[kind]), GREY, 12)
    made.text(390, 230, made.words("tile size"), GREY, 12)
    made.text(390, 247, made.words("real size"), GREY, 12)
    return made


def lanes(language: int) -> Drawing:
    """One step over d: a number of K times a column of Q, added to a row of S."""
    made = Drawing("lanes", 262, language)
    made.text(20, 24, made.words("lanes title"))
    made.text(20, 62, made.words("one"))
    made.box(60, 72, 30, 30, ACCENT)
    made.text(75, 92, "k", "#ffffff", anchor="middle")
    made.arrow(95, 87, 150, 87)
    made.text(122, 78, made.words("copied"), GREY, 11, "middle")
    rows = (("k", 72, "#f3c9ab", INK), ("q", 122, MIXED, INK), ("s", 172, FULL, "#ffffff"))
    for letter, y, fill, ink in rows:
        for i in range(8):
            made.box(156 + i * 34, y, 32, 30, fill)
            made.text(172 + i * 34, y + 20, letter if letter == "k" else f"{letter}{i}", ink, anchor="middle")
    made.text(450, 92, "×", size=16)
    made.text(450, 142, "+", size=16)
    made.text(20, 142, made.words("column"))
    made.text(20, 192, made.words("row"))
    made.text(156, 228, made.words("down"), GREY, 12)
    made.text(156, 245, made.words("bit"), GREY, 12)
    return made


def chunks(language: int) -> Drawing:
    """Eleven tiles, three chunks, one result."""
    made, unit = Drawing("chunks", 262, language), 610 / 2816
    made.text(20, 24, made.words("chunks title"))
    for first in range(0, 2816, 256):
        made.box(20 + first * unit, 44, 256 * unit, 30, MIXED)
        made.text(20 + (first + 128) * unit, 64, str(first), size=11, anchor="middle")
    made.text(20, 96, made.words("tiles are"), GREY, 12)
    for i, first in enumerate(range(0, 2816, 1024)):
        width = min(1024, 2816 - first) * unit
        made.box(20 + first * unit, 112, width, 34, FULL)
        made.text(20 + first * unit + width / 2, 133, made.words("chunk", i), "#ffffff", 12, "middle")
        made.arrow(20 + first * unit + width / 2, 178, 125 + 20 * i, 206)
    made.text(20, 166, made.words("chunks are"), GREY, 12)
    made.box(90, 210, 110, 34, ACCENT)
    made.text(145, 231, "((0 + 1) + 2)", "#ffffff", 12, "middle")
    made.text(215, 231, made.words("merged"), GREY, 12)
    return made


def cache(language: int) -> Drawing:
    """Two groups of sixteen keys; a row is one number of each."""
    made = Drawing("cache", 224, language)
    made.text(20, 24, made.words("cache"))
    for group in range(2):
        left = 110 + group * 270
        made.text(left + 120, 52, made.words("tokens", group * 16, group * 16 + 15), size=12, anchor="middle")
        for d in range(4):
            for lane in range(16):
                made.box(left + lane * 15, 62 + d * 26, 14, 24, FULL if d == 1 else MIXED)
    for d in range(4):
        made.text(100, 79 + d * 26, f"d = {d}", size=12, anchor="end")
    made.text(110, 190, made.words("load"), GREY, 12)
    made.text(110, 207, made.words("chain"), GREY, 12)
    return made


if __name__ == "__main__":
    for language in (0, 1):
        for draw in (tiles, lanes, chunks, cache):
            draw(language).save()
