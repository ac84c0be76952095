"""Which file formats are read, told by their first bytes, and how each is opened.

Pillow's ``Image.open`` is not used: it checks for decompression bombs against a process-wide limit, warns through the
``warnings`` module, tries every plugin it has, and one of those runs Ghostscript. Here the format is told first, and only
that format's reader is called.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Final

from PIL import Image, ImageFile, features

EXTRA_HINT: Final = 'pip install "iqakit[formats]"'

_PILLOW_READERS: Final = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "GIF": "GifImagePlugin",
    "WEBP": "WebPImagePlugin",
    "TIFF": "TiffImagePlugin",
    "BMP": "BmpImagePlugin",
    "PPM": "PpmImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "AVIF": "AvifImagePlugin",
    "ICO": "IcoImagePlugin",
    "PSD": "PsdImagePlugin",
    "QOI": "QoiImagePlugin",
    "DDS": "DdsImagePlugin",
    "SGI": "SgiImagePlugin",
    "PCX": "PcxImagePlugin",
    "TGA": "TgaImagePlugin",
}

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"IIRO", "RAW"),
    (b"IIRS", "RAW"),
    (b"MMOR", "RAW"),
    (b"IIU\x00", "RAW"),
    (b"II*\x00\x10\x00\x00\x00CR", "RAW"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"8BPS", "PSD"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"\x01\xda", "SGI"),
)

_OTHER: Final = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer (run 'git lfs pull')"),
)

_AVIF_BRANDS: Final = {b"avif", b"avis"}
_HEIC_BRANDS: Final = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}

RAW_SUFFIXES: Final = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
        *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    }
)


class UnreadableError(Exception):
    """What is wrong with a picture, as the end of a sentence; the caller knows the file's name."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file's first bytes say that it is.

    Attributes:
        format: A name such as ``"JPEG"``, ``"HEIC"`` or ``"RAW"``; None where it is no known picture.
        described: What it is, for people.
    """

    format: str | None
    described: str


def recognise(head: bytes, suffix: str = "") -> Kind:
    """Tell a file's format from its first 64 bytes.

    Args:
        head: The first bytes.
        suffix: The file name's ending with its dot, in lower case. It decides only for camera RAW files, which look like
            TIFF, and for TGA, which has no signature.
    """
    if head[4:8] == b"ftyp":
        return _boxed(head)
    found = next((name for start, name in _SIGNATURES if head.startswith(start)), None)
    if found is None and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "WEBP"
    if found is None and head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3].isspace():
        found = "PPM"
    if found is None and head[:1] == b"\x0a" and head[1:2] in b"\x00\x02\x03\x05" and head[2:3] == b"\x01":
        found = "PCX"
    if found in (None, "TIFF") and suffix in RAW_SUFFIXES:
        found = "RAW"
    if found is None and suffix == ".tga":
        found = "TGA"
    if found is not None:
        return Kind(found, {"RAW": "a camera RAW file", "JPEG2000": "a JPEG 2000 file"}.get(found, f"a {found} file"))
    lowered = head.lstrip().lower()
    other = next((text for start, text in _OTHER if lowered.startswith(start.lower())), None)
    if other is None:
        printable = bool(head) and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
        other = "text" if printable else f"data that begins with {head[:4].hex(' ')}"
    return Kind(None, other)


def _boxed(head: bytes) -> Kind:
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, length - 3, 4))]
    if brands[0] == b"crx ":
        return Kind("RAW", "a camera RAW file")
    if _AVIF_BRANDS.intersection(brands):
        return Kind("AVIF", "an AVIF file")
    if _HEIC_BRANDS.intersection(brands):
        return Kind("HEIC", "a HEIC file")
    return Kind(None, "a video or another file of the MP4 family")


def open_picture(stream: IO[bytes], kind: Kind) -> Image.Image:
    """Open a picture without decoding it.

    Args:
        stream: The file, which must stay open until the picture is decoded.
        kind: What ``recognise`` said of it.

    Raises:
        UnreadableError: There is no reader for this format, or an optional one is missing.
    """
    stream.seek(0)
    if kind.format == "HEIC":
        return _open_heic(stream)
    if kind.format == "RAW":
        return _open_raw(stream)
    if kind.format == "AVIF" and not features.check("avif"):
        return _open_heic(stream, "AVIF")
    if kind.format == "WEBP" and not features.check("webp"):
        raise UnreadableError("is a WebP file, but this Pillow was built without WebP; pip install --upgrade pillow")
    if kind.format == "JPEG2000" and not features.check("jpg_2000"):
        raise UnreadableError("is a JPEG 2000 file, but this Pillow was built without it; pip install --upgrade pillow")
    if kind.format is None:
        raise UnreadableError(f"is not an image that can be read: it is {kind.described}")
    importlib.import_module(f"PIL.{_PILLOW_READERS[kind.format]}")
    factory, _ = Image.OPEN[kind.format]
    if kind.format == "TIFF" and _is_raw(stream):
        return _open_raw(stream)
    picture: ImageFile.ImageFile = factory(stream, "")
    return picture


def _is_raw(stream: IO[bytes]) -> bool:
    """Whether a TIFF is a camera RAW file, of which Pillow would show a thumbnail or the sensor's mosaic, or nothing."""
    head = stream.read(16)
    if head.startswith(b"MM\x00+"):
        raise UnreadableError("is a big-endian BigTIFF, which cannot be read; save it as an ordinary TIFF or PNG")
    from PIL import TiffImagePlugin  # loaded already: only TIFF files come here

    tags = TiffImagePlugin.ImageFileDirectory_v2(head if head.startswith(b"II+") else head[:8])
    stream.seek(tags.next)
    tags.load(stream)
    stream.seek(0)
    dng_version, sub_files, make, subfile_type, photometric, cfa = 50706, 330, 271, 254, 262, 32803
    return (
        dng_version in tags
        or tags.get(photometric) == cfa
        or (sub_files in tags and make in tags and tags.get(subfile_type, 0) == 1)
    )


def _open_heic(stream: IO[bytes], name: str = "HEIC") -> Image.Image:
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        raise UnreadableError(
            f"is {'an' if name == 'AVIF' else 'a'} {name} file, which needs an extra: {EXTRA_HINT}"
        ) from None
    if name == "AVIF" and not hasattr(heif, "AvifImageFile"):
        raise UnreadableError("is an AVIF file, which needs a newer Pillow: pip install --upgrade pillow")
    reader = heif.AvifImageFile if name == "AVIF" else heif.HeifImageFile
    picture: Image.Image = reader(stream)
    return picture


def _open_raw(stream: IO[bytes]) -> Image.Image:
    """Develop a RAW file: camera white balance, sRGB, 8 bit, turned as the camera was held."""
    try:
        rawpy = importlib.import_module("rawpy")
    except ImportError:
        raise UnreadableError(f"is a camera RAW file, which needs an extra: {EXTRA_HINT}") from None
    with rawpy.imread(BytesIO(stream.read())) as raw:
        pixels = raw.postprocess(use_camera_wb=True, output_bps=8, output_color=rawpy.ColorSpace.sRGB)
    return Image.fromarray(pixels)
