"""What runs in a guest for its owner's ssh: programs for the Python of the agent disk.

Only modules that the agent itself imports are there. The ssh server is dropbear, carried in with
its loader and libraries, so that the image needs none; it listens inside the machine alone.
"""

from __future__ import annotations

DIRECTORY = "/var/lib/mayfly-ssh"
PORT = 2222
"""On the guest's loopback address: an image may have an ssh server of its own at 22."""

PREPARE = r"""
import fcntl, json, os, socket, struct, sys, time

source = sys.stdin.buffer
header = json.loads(source.readline())
top = header["directory"]
os.makedirs(top, mode=0o755, exist_ok=True)
for name, size in header["files"]:
    data = source.read(size)
    if len(data) != size:
        sys.exit("the files came incomplete")
    path = os.path.join(top, name)
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.chmod(path + ".new", 0o755)
    os.replace(path + ".new", path)


def account(wanted):
    with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split(":")
            if len(fields) == 7 and fields[0] == wanted:
                return int(fields[2]), int(fields[3]), fields[5]
    return None


def admit(name):
    found = account(name)
    if found is None:
        return
    uid, gid, home = found
    os.makedirs(home, mode=0o700, exist_ok=True)
    folder = os.path.join(home, ".ssh")
    child = os.fork()
    if child == 0:
        # As the user: whatever he put there, a link of his leads us nowhere.
        try:
            if os.stat(home).st_uid == 0 and uid != 0:
                os.chown(home, uid, gid)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            os.umask(0o077)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            file = os.path.join(folder, "authorized_keys")
            there = open(file).read().splitlines() if os.path.exists(file) else []
            with open(file, "a") as out:
                for key in header["keys"]:
                    if key not in there:
                        out.write(key + "\n")
            os._exit(0)
        except BaseException as error:
            os.write(2, ("%s: %s\n" % (folder, error)).encode())
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("the keys could not be put into the home of " + name)


for name in dict.fromkeys([header["user"], "root"]):
    admit(name)

LO_UP = struct.pack("16sH14x", b"lo", 0x1 | 0x8 | 0x40)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    try:
        fcntl.ioctl(any_socket, 0x8914, LO_UP)
    except OSError as error:
        os.write(2, ("lo: %s\n" % error).encode())

# The server starts itself anew for each connection if it finds the file of its own name: then it
# would have to do without our loader. With a name that is no file it forks.
words = [os.path.join(top, header["loader"]), "--argv0", "mayfly-ssh", "--library-path", top]
environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def tell(*argv):
    ours, theirs = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_CLOSE, ours)]
    pid = os.posix_spawn(words[0], [*words, *argv], environ, file_actions=actions)
    os.close(theirs)
    with os.fdopen(ours, errors="replace") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def listens():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", header["port"])) == 0


host_key = os.path.join(top, "host_key")
keygen = os.path.join(top, "dropbearkey")
if not os.path.exists(host_key):
    tell(keygen, "-t", "ed25519", "-f", host_key)
public = [l for l in tell(keygen, "-y", "-f", host_key).splitlines() if l.startswith("ssh-")]
if not listens():
    server = [os.path.join(top, "dropbear"), "-s", "-r", host_key, "-P", os.path.join(top, "pid")]
    tell(*server, "-p", "127.0.0.1:%d" % header["port"])
deadline = time.monotonic() + 20
while not listens():
    if time.monotonic() > deadline:
        sys.exit("the ssh server does not listen")
    time.sleep(0.02)
print(json.dumps({"host_keys": [" ".join(each.split()[:2]) for each in public]}))
"""

RELAY = r"""
import os, select, socket, sys

there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
poll = select.poll()
poll.register(0, select.POLLIN)
poll.register(there, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == 0:
            data = os.read(0, 65536)
            if data:
                there.sendall(data)
            else:
                poll.unregister(0)
                there.shutdown(socket.SHUT_WR)
        else:
            data = there.recv(65536)
            if not data:
                sys.exit(0)
            while data:
                data = data[os.write(1, data):]
"""
