"""Seeded damage to valid files: of their bytes, their text, and the values inside their wrappers.

A wrapper is what a reader checks first: the checksums of a PNG or a zip archive, the length of a
header. The functions here damage what is inside, and put a valid wrapper around it again.
"""

import contextlib
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

Damage = Callable[[random.Random, bytes], bytes]

NUMBERS = (
    "-1", "0", "1", "255", "256", "65536", "2147483648", "-9223372036854775809", "1e999", "nan",
    "-inf", "1.5", "0x10", "1_0", "\u0663", " 7 ", "", "9" * 30, "9" * 5000,
)  # fmt: skip
TEXTS = (
    "\0", "\ufeff", '"', "\r", "\u2028", "\x85", "\x1b[2J", "../../x", "/etc/passwd", "a\\b", ",",
    "\t", "\n", "\n\n", "=1+1", "{", "[" * 3000, "&a", "*a", "!!python/object:os.system", "null",
    "x" * 300, "y" * 200_000, "\u202e", "\U0001f600",
)  # fmt: skip
BYTES = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xff\xfe", b"\0")
SIZES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 255, 256, 1 << 40, 10**400, 0.5, -1e300, "", "x", "../x", "\0", [], {},
    [[]], [1, 2, 3], {"a": 1}, "\ud83d\ude00", "9" * 400,
)  # fmt: skip


def damage_bytes(draw: random.Random, content: bytes, safe: int = 0) -> bytes:
    """Damage one to three places; mostly behind the first `safe` bytes."""
    for _ in range(draw.randint(1, 3)):
        low = safe if len(content) > safe and draw.random() < 0.9 else 0
        at = draw.randrange(low, max(low + 1, len(content)))
        to = at + draw.choice((1, 2, 4, 8, 64, 1000))
        content = _damaged(draw, content[:at], content[at:to], content[to:])
    return content


def _damaged(draw: random.Random, before: bytes, here: bytes, after: bytes) -> bytes:
    """Damage the bytes `here`."""
    match draw.randrange(10):
        case 0:
            return before + _flipped(draw, here) + after
        case 1 | 2:
            width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
            number = draw.choice(SIZES) & ((1 << 8 * width) - 1)
            return before + number.to_bytes(width, order) + (here + after)[width:]
        case 3:
            return before
        case 4:
            return before + after
        case 5:
            return before + draw.randbytes(len(here)) + here + after
        case 6:
            return before + draw.randbytes(len(here)) + after
        case 7:
            return before + here * draw.choice((2, 3, 50)) + after
        case 8:
            return before + bytes(len(here)) + after
        case _:
            return _swapped(draw, before, here, after)


def _flipped(draw: random.Random, here: bytes) -> bytes:
    return bytes([here[0] ^ 1 << draw.randrange(8)]) + here[1:] if here else here


def _swapped(draw: random.Random, before: bytes, here: bytes, after: bytes) -> bytes:
    at = draw.randrange(len(after) + 1)
    other = after[at : at + len(here)]
    return before + other + after[:at] + here + after[at + len(other) :]


def splice(draw: random.Random, one: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return one[: draw.randrange(len(one) + 1)] + other[draw.randrange(len(other) + 1) :]


def damage_text(draw: random.Random, content: bytes, header: int = 1) -> bytes:
    """Damage one to three lines, cells or numbers; mostly behind the first `header` lines."""
    if draw.random() < 0.1:
        return damage_bytes(draw, content, content.find(b"\n") + 1)
    text = content.decode()
    if draw.random() < 0.05:
        at = draw.randrange(len(content) + 1)
        return content[:at] + draw.choice(BYTES) + content[at:]
    for _ in range(draw.randint(1, 3)):
        lines = text.split("\n")
        first = header if len(lines) > header and draw.random() < 0.9 else 0
        n = draw.randrange(first, len(lines))
        kind = draw.randrange(8)
        if kind <= 2:
            cells = lines[n].split(",")
            cells[draw.randrange(len(cells))] = draw.choice(NUMBERS if kind else TEXTS)
            lines[n] = ",".join(cells)
        elif kind == 3:
            at = draw.randrange(len(lines[n]) + 1)
            lines[n] = lines[n][:at] + draw.choice(TEXTS) + lines[n][at:]
        elif kind == 4:
            lines[n:n] = [lines[n]] * draw.choice((1, 300))
        elif kind == 5:
            del lines[n]
        elif kind == 6:
            m = draw.randrange(first, len(lines))
            lines[n], lines[m] = lines[m], lines[n]
        else:
            lines[n] = lines[n][: draw.randrange(len(lines[n]) + 1)]
        text = "\n".join(lines)
        if draw.random() < 0.03:
            text = draw.choice(("\ufeff" + text, text.replace("\n", "\r\n")))
    return text.encode()


def damage_value(draw: random.Random, value: Any, extreme: Sequence[Any] = VALUES) -> Any:
    """Replace, remove, rename, copy or wrap one value somewhere inside lists and mappings."""
    places: list[tuple[Any, Any]] = []

    def collect(one: Any) -> None:
        inside = one.items() if isinstance(one, dict) else enumerate(one)
        for key, below in list(inside):
            places.append((one, key))
            if isinstance(below, dict | list):
                collect(below)

    value = json.loads(json.dumps(value))
    if not isinstance(value, dict | list) or not value or draw.random() < 0.03:
        return draw.choice(extreme)
    collect(value)
    for _ in range(draw.randint(1, 2)):
        holder, key = draw.choice(places)
        kind = draw.randrange(7)
        try:
            if kind <= 2:
                holder[key] = draw.choice(extreme)
            elif kind == 3:
                del holder[key]
            elif kind == 4:
                holder[key] = [holder[key]]
            elif isinstance(holder, dict):
                holder[draw.choice(("x", "", str(key) + " ", str(key).upper()))] = holder.pop(key)
            else:
                holder.extend(holder[:50])
        except (KeyError, IndexError):  # an earlier damage removed the place
            continue
    return value


def damage_json(draw: random.Random, content: bytes) -> bytes:
    if draw.random() < 0.15:
        return damage_bytes(draw, content, 1)
    value = damage_value(draw, json.loads(content))
    text = json.dumps(value)
    if draw.random() < 0.1:
        texts = ("[" * 50_000, "NaN", "Infinity", "9" * 5000, "1e999", '"\\ud800"')
        text = text.replace("1", draw.choice(texts), 1)
    return text.encode()


# --------------------------------------------------------------------------- wrappers


def in_png(draw: random.Random, content: bytes) -> bytes:
    """Damage, copy, move or remove chunks of a PNG; all checksums fit again."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(draw.randint(1, 2)):
        # The first chunk has the size of the image.
        n = draw.randrange(0 if draw.random() < 0.3 else min(1, len(chunks) - 1), len(chunks))
        kind, data = chunks[n]
        what = draw.randrange(8)
        if what <= 2:
            chunks[n] = (kind, damage_bytes(draw, data))
        elif what == 3 and kind == b"IDAT":
            with contextlib.suppress(zlib.error):  # damaged before
                chunks[n] = (kind, zlib.compress(damage_bytes(draw, zlib.decompress(data))))
        elif what == 4:
            chunks.insert(draw.randrange(1, len(chunks) + 1), (kind, data))
        elif what == 5 and n:
            del chunks[n]
        elif what == 6:
            name = draw.choice((b"tEXt", b"zTXt", b"iTXt", b"acTL", b"fdAT", b"eXIf", b"iCCP"))
            inside = draw.choice((zlib.compress(bytes(1 << 22)), draw.randbytes(40), b"\0" * 9))
            chunks.insert(draw.randrange(1, len(chunks)), (name, b"a\0\0" + inside))
        else:
            chunks[n] = (draw.choice((b"PLTE", b"tRNS", b"IDAT", b"IHDR", b"\xff\0\1\2")), data)
        if not chunks:
            break
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[:8] + b"".join(packed)


def in_zip(draw: random.Random, content: bytes, damage: Damage = damage_bytes) -> bytes:
    """Damage a member of a zip archive, or what the archive says about its members."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(info, file.read(info)) for info in file.infolist()]
    n = draw.randrange(len(members))
    kind = draw.randrange(10)
    if kind <= 5:
        members[n] = (members[n][0], damage(draw, members[n][1]))
    elif kind == 6:
        members.insert(n, members[n])
    elif kind == 7:
        del members[n]
    elif kind == 8:
        info = members[n][0]
        info.filename = draw.choice(
            ("", "/etc/x", "../x", "a\\b", "x. ", "x/", "a\nb", info.filename.upper(), "\x1b[2Jx")
        )
    buffer = io.BytesIO()
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(buffer, "w") as file:
        for info, data in members:
            one = zipfile.ZipInfo(info.filename or "-")
            one.external_attr = info.external_attr
            file._didModify = True
            name = one.filename
            while name in file.NameToInfo:  # silences zipfile's warning of a duplicate name
                del file.NameToInfo[name]
            file.writestr(one, data, method if info.compress_type else zipfile.ZIP_STORED)
    packed = bytearray(buffer.getvalue())
    if kind == 9:
        # The central directory: flags, method, times, checksum, sizes, lengths, attributes, place.
        directory = packed.find(b"PK\1\2")
        fields = ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (38, 4), (42, 4))
        at, width = draw.choice(fields)
        if directory >= 0:
            number = draw.choice((*SIZES, 8, 12, 14, 99)) & ((1 << 8 * width) - 1)
            packed[directory + at : directory + at + width] = number.to_bytes(width, "little")
    return bytes(packed)


def in_tar(draw: random.Random, content: bytes) -> bytes:
    """Damage one field of a member's header, whose checksum fits again, or the rest."""
    if draw.random() < 0.2:
        return damage_bytes(draw, content, 512)
    blocks = [
        at for at in range(0, len(content) - 511, 512) if content[at + 257 : at + 262] == b"ustar"
    ]
    at = draw.choice(blocks)
    header = bytearray(content[at : at + 512])
    field, width = draw.choice(
        ((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155))
    )
    values = (
        b"", b"../../x", b"/etc/x", b"a\\b", b"7" * width, b"\xff" * width, b"\x80" + b"\0" * 6,
        b"\x80\0\0\0\1" + bytes(7), b"0", b"1", b"2", b"3", b"5", b"6", b"x", b"g", b"L", b"K",
        b"S", b"x\0y", b"x/. ", b"\xc3\x28",
    )  # fmt: skip
    header[field : field + width] = draw.choice(values)[:width].ljust(width, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:at] + bytes(header) + content[at + 512 :]


def in_gzip(draw: random.Random, content: bytes, damage: Damage) -> bytes:
    return gzip.compress(damage(draw, gzip.decompress(content)), 1, mtime=0)


def in_npy(draw: random.Random, content: bytes) -> bytes:
    """Damage the header of a .npy file, which keeps its length, or the numbers."""
    length = 10 + int.from_bytes(content[8:10], "little")
    header, numbers = content[10:length].decode("latin-1"), content[length:]
    kind = draw.randrange(4)
    if kind == 0:
        return damage_bytes(draw, content, length)
    old = draw.choice(("'<i8'", "False", "(2, 65536)", "descr", "shape", "2", "65536"))
    new = draw.choice(
        ("'<f8'", "'|O'", "'<i4'", "'>i8'", "'<U9999999'", "[('a','<i8')]", "True", "(2, 65536, 1)",
         "(99999999999,)", "(-1, 65536)", "(1<<60, 65536)", "()", "'" * 3, "None", "2e9", "{}",
         "(" * 200, "0", "3", "1", "999999999999999999999999", "__import__('os')")
    )  # fmt: skip
    header = header.rstrip().replace(old, new, 1)
    padded = header.ljust(-(-(len(header) + 11) // 64) * 64 - 11) + "\n"
    return content[:8] + len(padded).to_bytes(2, "little") + padded.encode("latin-1") + numbers


def in_safetensors(draw: random.Random, content: bytes) -> bytes:
    """Damage the JSON header of a .safetensors file, whose length fits again, or the numbers."""
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    if draw.random() < 0.25:
        return damage_bytes(draw, content, 8 + size)
    header = damage_json(draw, header)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]
