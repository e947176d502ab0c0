#!/bin/bash
# SPDX-License-Identifier: MIT
# Goal: an image that was imported (plain tar, docker save, OCI layout) is a root of its own: its
# programs, its /etc, its variables and nothing of the host's; what does not exist is refused by name,
# what is used stays, and an archive that reaches for the host leaves no trace.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/rest.sh"

image() { env -i PATH="$PLAIN_PATH" HOME="$SERVER_HOME" "${SAN_OPTIONS[@]}" "$SILTD" image "$@" --data-dir "$DATA"; }

# ---- images of what this machine has: its Python with its libraries, packed in four ways
/usr/bin/python3 - "$TMP" <<'END'
import hashlib, io, json, os, platform, re, subprocess, sys, sysconfig, tarfile

tmp = sys.argv[1]
files = {}

def libraries(path):
    text = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    return re.findall(r"(/[^\s)]+\.so[^\s)]*)", text)

def add(path):
    files[path] = os.path.realpath(path)
    for library in libraries(path):
        files[library] = os.path.realpath(library)

python = os.path.realpath("/usr/bin/python3")
add("/bin/sh")
add("/bin/cat")
add(python)
stdlib = sysconfig.get_path("stdlib")
for folder, names, found in os.walk(stdlib):
    names[:] = [n for n in names if n not in ("__pycache__", "test", "idlelib", "lib2to3", "ensurepip",
                                              "tkinter", "dist-packages", "distutils", "pydoc_data")]
    files.update({os.path.join(folder, n): os.path.join(folder, n) for n in found
                  if n.endswith(".py") and os.path.exists(os.path.join(folder, n))})

def info(name, kind=tarfile.REGTYPE, mode=0o644, target="", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname, member.size = kind, mode, target, size
    return member

def layer(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                tar.addfile(info(name, size=len(content), mode=0o755 if b"ELF" in content[:4] else 0o644),
                            io.BytesIO(content))
    return out.getvalue()

base = [(path[1:], open(source, "rb").read()) for path, source in sorted(files.items())]
base += [("", info("opt/bin/python3", tarfile.SYMTYPE, target=python)),
         ("", info("usr/bin/python3", tarfile.SYMTYPE, target=os.path.basename(python))),
         ("etc/mark", b"the image's own\n"), ("etc/gone", b"x"), ("dev/null", b"")]
low = layer(base)
top = layer([("etc/.wh.gone", b""), ("etc/second", b"of the second layer\n")])

with open(tmp + "/root.tar", "wb") as f:
    f.write(low)
subprocess.run(["gzip", "-1", "-k", tmp + "/root.tar"], check=True)

def sha(data):
    return hashlib.sha256(data).hexdigest()

arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
config = json.dumps({"architecture": arch, "os": "linux", "config": {
    "Env": ["PATH=/opt/bin:/bin", "FROM_IMAGE=yes", "HOME=/root"], "User": "root", "WorkingDir": "/opt"},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha(low), "sha256:" + sha(top)]}}).encode()

# docker save
with open(tmp + "/docker.tar", "wb") as f:
    f.write(layer([(sha(low) + "/layer.tar", low), (sha(top) + "/layer.tar", top),
                   (sha(config) + ".json", config),
                   ("manifest.json", json.dumps([{"Config": sha(config) + ".json", "RepoTags": ["a:1"],
                    "Layers": [sha(low) + "/layer.tar", sha(top) + "/layer.tar"]}]).encode())]))

# an OCI layout with packed layers, as a folder
import gzip
blobs = tmp + "/layout/blobs/sha256/"
os.makedirs(blobs)

def blob(data):
    with open(blobs + sha(data), "wb") as f:
        f.write(data)
    return {"digest": "sha256:" + sha(data), "size": len(data)}

layers = [blob(gzip.compress(data, 1)) for data in (low, top)]
manifest = blob(json.dumps({"schemaVersion": 2, "config": blob(config), "layers": layers}).encode())
with open(tmp + "/layout/index.json", "w") as f:
    json.dump({"schemaVersion": 2, "manifests": [manifest]}, f)
with open(tmp + "/layout/oci-layout", "w") as f:
    f.write('{"imageLayoutVersion":"1.0.0"}')

# what reaches for the host
outside = tmp + "/outside"
os.makedirs(outside)
with open(outside + "/secret", "w") as f:
    f.write("untouched")
hostile = {
    "up": [("../../../../../.." + outside + "/new", b"x")],
    "absolute": [(outside + "/new", b"x")],
    "symlink": [("", info("a", tarfile.SYMTYPE, target=outside)), ("a/new", b"x")],
    "link": [("", info("a", tarfile.SYMTYPE, target=outside)),
             ("", info("b", tarfile.LNKTYPE, target="a/secret")), ("b", b"stolen")],
    "dev": [("", info("dev", tarfile.SYMTYPE, target="/dev"))],
}
for name, entries in hostile.items():
    with open(tmp + "/hostile-" + name + ".tar", "wb") as f:
        f.write(layer(entries))
END
same 'archives were made' 0 $?

start_server
try image import plain "$TMP/root.tar.gz"
same 'a packed tar of a root is imported' 0 "$code"
contains 'and how to use it' 'silt init --image plain' "$out"
try image import docker - <"$TMP/docker.tar"
same 'what docker save wrote, from standard input' 0 "$code"
contains 'with its layers' 'docker image, 2 layers' "$out"
try image import oci "$TMP/layout"
same 'the folder of an OCI layout' 0 "$code"
tar -C "$TMP/layout" -cf "$TMP/layout.tar" .
try image import ocitar "$TMP/layout.tar"
same 'a tar of it' 0 "$code"
try image import oci "$TMP/layout"
same 'a name that is taken' 1 "$code"
contains 'is refused with what to do' 'siltd image remove oci' "$err"
try image list --json
same 'they are listed' 'docker oci ocitar plain' "$(jq -r '[.items[].name] | join(" ")' <<<"$out")"
same 'one image, one digest, however it is packed' 1 \
    "$(jq -r '.items[] | select(.name != "plain") | .digest' <<<"$out" | sort -u | wc -l)"
call GET /v1/images
same 'the server sees them at once' 'host docker oci ocitar plain' \
    "$(jq -r '[.items[].name] | join(" ")' <<<"$body")"

# ---- a run in each
for name in plain docker oci ocitar; do
    new_sandbox "{\"image\":\"$name\",\"language\":\"python\"}"
    put main.py 'import os, sys
print(open("/etc/mark").read().strip(), sys.argv, os.environ.get("FROM_IMAGE"), os.environ["HOME"], os.getuid())
print(os.path.exists("/etc/gone"), os.path.exists("/etc/second"), os.path.exists("/usr/share"))
import pwd; print(pwd.getpwuid(1000).pw_name)
for path in ("/etc/x", "/x", "/usr/x"):
    try: open(path, "w"); print("WROTE", path)
    except OSError as e: pass
open("/workspace/made", "w").write("here"); open("/tmp/t", "w"); open("/cache/c", "w")'
    run '{"filename":"main.py"}'
    expect "$name: a file is run" 200
    case $name in plain) from=None gone='True False' ;; *) from=yes gone='False True' ;; esac
    same "$name: in the image, with its variables, and as everywhere" \
        "the image's own ['main.py'] $from /cache/home 1000
$gone False
silt" "$(field stdout)"
    same "$name: the run says so" "$name" "$(field runtime.image)"
    same "$name: what it wrote is in the workspace" made "$(jq -r '[.files_changed[].path] | join(" ")' <<<"$body")"
done
prepared() { run '{"filename":"main.py"}' && [ "$(field runtime.prepared)" = true ]; }
check 'a container waits in the image, with its interpreter' wait_until 30 prepared
same 'and its output is the same' "the image's own" "$(field stdout | head -n 1 | cut -d' ' -f1-3)"
version() { run '{"filename":"main.py"}' && [ "$(field runtime.version)" != null ]; }
check 'the version of the image is told' wait_until 30 version
run '{"command":["node","-e","1"]}'
same 'programs of the host are not there' 127 "$(field exit_code)"
put main.rb 'puts 1'
run '{"filename":"main.rb"}'
expect 'an interpreter that the image lacks' 422 interpreter_missing
contains 'is named with the image' "'ruby' is not in image 'ocitar'" "$body"

# ---- names that are none, and changing it
call POST /v1/sandboxes -d '{"image":"nope"}'
expect 'an unknown image' 422 unknown_image
contains 'the answer says which there are' 'there is docker, oci, ocitar, plain and host' "$body"
contains 'and how to add it' 'siltd image import nope FILE' "$body"
call POST /v1/sandboxes -d '{"image":"../../etc"}'
expect 'a name with a path' 422 unknown_image
call PATCH "/v1/sandboxes/$SB" -d '{"image":"host"}'
expect 'back to the host' 200
run '{"command":"cat /etc/mark"}'
same 'where the image is not' failed "$(field status)"
same 'the run names the host' host "$(field runtime.image)"

# ---- the agent
mkdir "$TMP/project" && cd "$TMP/project" && echo 'print(open("/etc/mark").read(), end="")' >main.py
try silt init --image docker
same 'a project is linked with an image' 0 "$code"
try silt run main.py
same 'its runs are in it' "the image's own" "$out"
try silt init --image host
contains 'and go elsewhere when told so' 'image host' "$out"
try silt run main.py
contains 'the host has no such file' 'FileNotFoundError' "$err"
try silt init --image nope
contains 'an unknown one is refused' "there is no image 'nope'" "$err"
cd "$TMP"

# ---- removing
try image remove oci
same 'an image in use stays' 1 "$code"
contains 'by whom is said' 'is used by sb_' "$err"
try image remove ocitar
same 'one that nobody uses goes' 0 "$code"
check 'with its files' [ ! -e "$DATA/images/ocitar" ]
call GET /v1/sandboxes
epoch=$(jq -r '.items[0].epoch' <<<"$body")
stop_server
try image remove oci
same 'also without a server an image in use stays' 1 "$code"
check 'and is there' [ -e "$DATA/images/oci/etc/mark" ]
start_server
call GET /v1/sandboxes
check 'the look at the database changed no epoch' [ "$(jq -r '.items[0].epoch' <<<"$body")" = "$epoch" ]

# ---- hostile archives
for archive in "$TMP"/hostile-*.tar; do
    name=${archive##*/hostile-}
    try image import hostile "$archive"
    same "${name%.tar}: is refused" 1 "$code"
done
same 'the host is untouched' 'secret untouched' "$(ls "$TMP/outside") $(cat "$TMP/outside/secret")"
same 'nothing is left' 'lock notes' "$(ls "$DATA/images/.silt" | xargs)"
head -c 100000 "$TMP/docker.tar" >"$TMP/cut.tar"
try image import cut "$TMP/cut.tar"
same 'an archive that was cut is refused' 1 "$code"
try image import cut /etc/passwd
contains 'a file that is no archive is refused' 'no archive that can be read' "$err"
same 'no image came of it' 'docker oci plain' "$(ls "$DATA/images" | xargs)"
stop_server
finish
