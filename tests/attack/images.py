# SPDX-License-Identifier: MIT
"""Archives of root file systems that reach for the host while they are imported."""
import hashlib
import io
import json
import os
import platform
import tarfile

from base import case


def member(name, kind=tarfile.REGTYPE, content=b"", target="", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, mode, len(content)
    return info, content


def symlink(name, target):
    return member(name, tarfile.SYMTYPE, target=target)


def tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def saved(*layers, digests=None):
    """What `docker save` writes of these layers."""
    names = digests or [hashlib.sha256(layer).hexdigest() for layer in layers]
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps({"architecture": arch, "os": "linux", "rootfs": {
        "type": "layers", "diff_ids": ["sha256:" + name for name in names]}}).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "Layers": [n + ".tar" for n in names]}]).encode()
    return tar(*[member(name + ".tar", content=layer) for name, layer in zip(names, layers)],
               member(config_name, content=config), member("manifest.json", content=manifest))


def imported(t, archive):
    """Whether it became an image, at t.data/images/hostile."""
    path = t.base + "/hostile.tar"
    t.siltd("image", "remove", "hostile")
    with open(path, "wb") as f:
        f.write(archive)
    return t.siltd("image", "import", "hostile", path) == 0


@case("image with a name that leads out of its root", "image-path,image-root,image-confine")
def leads_out(t):
    imported(t, tar(member("../" * 12 + t.outside[1:] + "/new", content=b"x")))
    return os.path.exists(t.outside + "/new")


@case("image with a file in a symlink that leads out", "image-root,image-confine")
def through_symlink(t):
    imported(t, tar(symlink("a", t.outside), member("a/through", content=b"x")))
    return os.path.exists(t.outside + "/through")


@case("image with a link to a file of the host", "image-root,image-confine")
def links_host(t):
    imported(t, tar(symlink("a", t.outside),
                    member("stolen", tarfile.LNKTYPE, target="a/root-only")))
    return os.stat(t.outside + "/root-only").st_nlink > 1


@case("layer that hides a file of the host", "image-root,image-confine")
def hides_host(t):
    prey = t.outside + "/prey"
    with open(prey, "w") as f:
        f.write("prey")
    t.known_outside = t.outside_state()
    imported(t, saved(tar(symlink("a", t.outside)), tar(member("a/.wh.prey"))))
    return not os.path.exists(prey)


@case("layer that is not what its digest says", "image-digest")
def other_content(t):
    return imported(t, saved(tar(member("a", content=b"x")), digests=["0" * 64]))


@case("program of an image that would be root on the host", "image-modes")
def setuid(t):
    imported(t, tar(member("bin/su", content=b"#!/bin/sh\n", mode=0o4755)))
    return os.stat(t.data + "/images/hostile/bin/su").st_mode & 0o4000 != 0


@case("image whose /dev is a symlink", "image-points")
def mount_point(t):
    return imported(t, tar(symlink("dev", "/tmp"), symlink("proc", t.outside)))


@case("sparse file of 1 TiB in an image", "image-bounds")
def sparse(t):
    """One of GNU's headers says so, and no byte of content follows."""
    info, _ = member("big")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = b"S"
    head[386:398], head[398:410] = b"%011o\0" % 0, b"%011o\0" % 0
    head[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return imported(t, bytes(head) + bytes(1024))


@case("layer that hides '..'", "image-hide")
def hides_parent(t):
    lower, upper = tar(member("a/b", content=b"x")), tar(member("a/.wh..."), member("a/.wh.."))
    said = os.path.getsize(t.base + "/log")
    if imported(t, saved(lower, upper)):
        return True
    with open(t.base + "/log", "rb") as f:  # or has the process that reads it died of it?
        return b"was ended before it was complete" in f.read()[said:]
