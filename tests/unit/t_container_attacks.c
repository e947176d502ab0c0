/* SPDX-License-Identifier: MIT */
/* What a hostile program in a container tries, and what it must not get. */
#include "tests/unit/container_fixture.h"

#include "shared/banned.h"

/* ctypes' syscall(2) with the error as result: call(nr, …) → value or -errno. */
#define CALL                                                                                       \
    "import ctypes, os, errno, platform\n"                                                         \
    "libc = ctypes.CDLL(None, use_errno=True)\n"                                                   \
    "def call(*a):\n"                                                                              \
    "    r = libc.syscall(*[ctypes.c_long(x) for x in a])\n"                                       \
    "    return -ctypes.get_errno() if r < 0 else r\n"                                             \
    "E = lambda r: errno.errorcode.get(-r, str(r))\n"

static void expect(struct fixture *f, const char *script, const char *out)
{
    static struct run r;
    PYTHON(f, &r, script);
    assert_string_equal(r.out, out);
    assert_int_equal(r.exit.exit_code, 0);
    assert_int_equal(r.exit.signal, 0);
}

/* Process 1 has the program's uid and holds the socket on which results are reported. */
static void test_init_cannot_be_robbed(void **state)
{
    expect(*state,
        CALL "PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206\n"
             "print(E(libc.ptrace(PTRACE_ATTACH, 1, 0, 0) and -ctypes.get_errno()))\n"
             "print(E(libc.ptrace(PTRACE_SEIZE, 1, 0, 0) and -ctypes.get_errno()))\n"
             "fd = os.pidfd_open(1)\n"
             "print([E(call(438, fd, n, 0)) for n in (0, 1, 2, 3, 4)])\n" /* pidfd_getfd */
             "for p in ('mem', 'environ', 'fd', 'maps', 'cwd', 'root', 'exe', 'stack', 'fd/3'):\n"
             "    try:\n"
             "        (os.listdir if p == 'fd' else os.readlink if p in ('cwd', 'root', 'exe')\n"
             "            else lambda x: open(x, 'rb').read(1))('/proc/1/' + p)\n"
             "        print(p, 'readable')\n"
             "    except OSError as e: pass\n"
             "    try: open('/proc/1/' + p, 'wb'); print(p, 'writable')\n"
             "    except OSError as e: pass\n"
             /* process_vm_readv: one byte */
             "b = ctypes.create_string_buffer(16)\n"
             "iov = (ctypes.c_long * 2)(ctypes.addressof(b), 16)\n"
             "print(E(call(310, 1, ctypes.addressof(iov), 1, ctypes.addressof(iov), 1, 0)))\n"
             /* a limit on processor time would kill it: prlimit on another process is filtered */
             "import resource\n"
             "try: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0)); print('limited')\n"
             "except OSError as e: print(E(-e.errno))\n",
        "EPERM\nEPERM\n['EPERM', 'EPERM', 'EPERM', 'EPERM', 'EPERM']\nEPERM\nEPERM\n");
}

/* Starved or made to wait, process 1 would no longer end what it should; a program may slow only
 * itself down, by the number 0 or its own. */
static void test_init_cannot_be_slowed(void **state)
{
    expect(*state,
        CALL
        "x86 = platform.machine() == 'x86_64'\n"
        "ioprio, setattr = (251, 314) if x86 else (30, 274)\n"
        "IDLE = 3 << 13\n"
        /* struct sched_attr: its size; keep the policy and its parameters */
        "attr = ctypes.create_string_buffer((48 | 0x18 << 64).to_bytes(48, 'little'), 48)\n"
        "at = ctypes.addressof(attr)\n"
        "own = os.sched_getaffinity(0)\n"
        "idle = os.sched_param(0)\n"
        "def t(f, *a):\n"
        "    try: return E(f(*a) or 0)\n"
        "    except OSError as e: return E(-e.errno)\n"
        "def all(pid): return [t(*x) for x in ((os.setpriority, os.PRIO_PROCESS, pid, 5),\n"
        "    (call, ioprio, 1, pid, IDLE), (call, setattr, pid, at, 0),\n"
        "    (os.sched_setparam, pid, idle), (os.sched_setaffinity, pid, own),\n"
        "    (os.sched_setscheduler, pid, os.SCHED_IDLE, idle))]\n"
        "print(*all(1))\n"
        "print(*[t(os.setpriority, w, n, 6) for w, n in ((os.PRIO_PGRP, 0), (os.PRIO_PGRP, 1),\n"
        "    (os.PRIO_USER, 0), (os.PRIO_USER, os.getuid()), (-1, 0))])\n"
        "print(*[t(call, ioprio, w, n, IDLE) for w, n in ((2, 0), (2, 1), (3, 0),\n"
        "    (3, os.getuid()))])\n"
        "print(os.getpriority(os.PRIO_PROCESS, 1), os.sched_getscheduler(1))\n"
        "print(os.nice(1))\n"
        "print(*all(0))\n"
        "print(*all(os.getpid()))\n",
        "EPERM EPERM EPERM EPERM EPERM EPERM\nEPERM EPERM EPERM EPERM EPERM\n"
        "EPERM EPERM EPERM EPERM\n0 0\n1\n0 0 0 0 0 0\n0 0 0 0 0 0\n");
}

static void test_init_cannot_be_signalled(void **state)
{
    static struct run r;
    PYTHON(*state, &r,
        "import os\n"
        "for s in range(1, 65):\n"
        "    try: os.kill(1, s)\n"
        "    except OSError: pass\n"
        "os.kill(1, 0)\n" /* still there */
        "os._exit(42)\n");
    assert_int_equal(r.exit.exit_code, 42);
    assert_false(r.exit.lost);
}

static void test_no_descriptor_leaks(void **state)
{
    expect(*state,
        "import os\n"
        "own = os.open('/proc/self/fd', os.O_DIRECTORY)\n"
        "print(sorted(int(x) for x in os.listdir(own) if int(x) != own\n"
        "    and os.path.exists('/proc/self/fd/' + x)))\n",
        "[0, 1, 2]\n");
}

static void test_no_privileges(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    SH(f, &r,
        "id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; "
        "wc -l < /proc/self/uid_map; umask");
    assert_string_equal(r.out, "1000\n1000\n1000\n"
                               "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
                               "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"
                               "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n1\n0022\n");
}

/* A setuid program that the host's root left in the workspace. */
static void test_setuid_gains_nothing(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    char path[256];
    SH(f, &r, "cp /usr/bin/python3 /workspace/p && chmod 6755 /workspace/p");
    assert_string_equal(r.out, "");
    (void)snprintf(path, sizeof path, "%s/p", f->workspace);
    if (fixture_is_root(f))
        assert_int_equal(chown(path, 0, 0) | chmod(path, 06755), 0);
    RUN(f, &r, "/workspace/p", "-c", "import os; print(os.getresuid(), os.getresgid())");
    assert_string_equal(r.out, "(1000, 1000, 1000) (1000, 1000, 1000)\n");
    assert_int_equal(unlink(path), 0);
}

static void test_mounts(void **state)
{
    static struct run r;
    /* nosuid and nodev on what the program may write */
    SH(*state, &r,
        "awk '$2==\"/workspace\" || $2==\"/cache\" || $2==\"/tmp\" || $2==\"/dev/shm\" "
        "{print $2, ($4 ~ /nosuid/), ($4 ~ /nodev/), ($4 ~ /^rw/)}' /proc/mounts | sort");
    assert_string_equal(r.out, "/cache 1 1 1\n/dev/shm 1 1 1\n/tmp 1 1 1\n/workspace 1 1 1\n");
    /* and read-only all that is not */
    SH(*state, &r,
        "for d in / /usr /usr/bin /etc /etc/ssl /etc/alternatives /dev /proc/sys /sys /var "
        "/run; do touch $d/x 2>/dev/null && echo writable $d; done; "
        "echo 1 >/proc/sys/kernel/hostname; echo >/dev/.silt-init; chmod 777 /");
    assert_null(strstr(r.out, "writable"));
    assert_int_not_equal(r.exit.exit_code, 0);
}

static void test_host_is_not_visible(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    char script[512];
    SH(f, &r,
        "for p in /usr/local/etc/* /home /root /etc/shadow /etc/ssh /var/lib /boot /opt /srv /mnt "
        "/sys/kernel /sys/fs /proc/kcore_; do [ -e $p ] && echo $p; done; "
        "cut -d: -f1 /etc/passwd; hostname; cat /proc/keys; ls /tmp /cache /dev/shm");
    assert_string_equal(r.out, "root\nsilt\nnobody\nsilt\n/cache:\n\n/dev/shm:\n\n/tmp:\n");
    /* not even by its path outside */
    (void)snprintf(script, sizeof script, "ls %s", f->base);
    SH(f, &r, script);
    assert_int_not_equal(r.exit.exit_code, 0);
    expect(f, "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))",
        "[1, 2]\n");
}

static void test_network(void **state)
{
    expect(*state,
        "import socket, errno\n"
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
        "c = socket.create_connection(s.getsockname()); print('loopback works')\n"
        "for a in ('198.51.100.1', '169.254.169.254', '10.0.0.1'):\n"
        "    try: socket.create_connection((a, 80), 5); print('connected')\n"
        "    except OSError as e: print(errno.errorcode[e.errno])\n"
        "print([n for _, n in socket.if_nameindex()])\n"
        "for fam in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_PACKET, socket.AF_BLUETOOTH):\n"
        "    try: socket.socket(fam, socket.SOCK_SEQPACKET); print('made')\n"
        "    except OSError as e: print(errno.errorcode[e.errno])\n"
        "try: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('raw')\n"
        "except OSError as e: print(errno.errorcode[e.errno])\n"
        "socket.socketpair(); socket.socket(socket.AF_INET6)\n",
        "loopback works\nENETUNREACH\nENETUNREACH\nENETUNREACH\n['lo']\n"
        "EAFNOSUPPORT\nEAFNOSUPPORT\nEAFNOSUPPORT\nEAFNOSUPPORT\nEPERM\n");
}

/* x86-64 numbers; the filter is compiled from the kernel's headers on every machine. */
static void test_filtered_calls(void **state)
{
#if defined(__x86_64__)
    expect(*state,
        CALL "NEWUSER, NEWNS = 0x10000000, 0x20000\n"
             "for name, *a in (\n"
             "    ('unshare user', 272, NEWUSER), ('unshare mount', 272, NEWNS),\n"
             "    ('clone user', 56, NEWUSER | 17, 0, 0, 0, 0), ('setns', 308, 0, 0),\n"
             "    ('mount', 165, 0, 0, 0, 0, 0), ('umount2', 166, 0, 0), ('keyctl', 250, 0, 0),\n"
             "    ('add_key', 248, 0, 0, 0, 0, 0), ('bpf', 321, 0, 0, 0),\n"
             "    ('perf', 298, 0, 0, 0, 0, 0), ('io_uring', 425, 1, 0), ('uffd', 323, 0),\n"
             "    ('handle', 304, 0, 0, 0), ('kexec', 246, 0, 0, 0, 0), ('syslog', 103, 3, 0, 0),\n"
             "    ('fsopen', 430, 0, 0), ('open_tree', 428, 0, 0, 0), ('pivot', 155, 0, 0),\n"
             "    ('sti', 16, 0, 0x5412, 0)):\n"
             "    r = E(call(*a))\n"
             "    if r != 'EPERM': print(name, r)\n"
             "print(E(call(435, 0, 0)))\n"       /* clone3: C libraries fall back */
             "print(E(call(0x40000000 + 39)))\n" /* getpid by its x32 number */
             "print(E(call(272, 0x400)))\n"      /* unshare files only is harmless */
             "import threading; t = threading.Thread(target=print, args=('thread',)); t.start()\n"
             "t.join()\n",
        "ENOSYS\nENOSYS\n0\nthread\n");
#else
    (void)state;
#endif
}

/* Forks until it fails: bounded, told, and everything is gone afterwards. */
static void test_fork_bomb(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    PYTHON(f, &r,
        "import os, time\n"
        "n = 0\n"
        "try:\n"
        "    while n < 1000:\n"
        "        if os.fork() == 0: time.sleep(1000)\n"
        "        n += 1\n"
        "except OSError as e: print(n, e.errno)\n");
    int n = 0, error = 0;
    assert_int_equal(sscanf(r.out, "%d %d", &n, &error), 2);
    assert_true(n >= 30 && n <= 64);
    assert_int_equal(error, EAGAIN);
    assert_int_equal(r.exit.exit_code, 0);
    if (fixture_is_root(f))
        assert_true(r.exit.pids_limit_hit);
}

static void test_memory_hog(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    char id[32];
    struct container_spec spec = fixture_spec(f, id);
    spec.limits.memory_bytes = 48u << 20;
    fixture_run_spec(f, &spec,
        (const char *const[]){"/usr/bin/python3", "-c", "x = b'x' * (300 << 20)", NULL}, "/", &r);
    if (fixture_is_root(f)) {
        assert_true(r.exit.oom_killed);
        assert_int_equal(r.exit.signal, 9);
        assert_true(r.exit.memory_peak_bytes > (40u << 20));
        assert_true(r.exit.memory_peak_bytes <= (48u << 20));
    } else {
        assert_non_null(strstr(r.out, "MemoryError"));
        assert_int_equal(r.exit.exit_code, 1);
    }
    assert_false(r.exit.lost);
}

/* Files in memory count too, until even process 1 finds no page: never "lost". */
static void test_memory_full_of_files(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    char id[32];
    struct container_spec spec = fixture_spec(f, id);
    if (!fixture_is_root(f))
        return; /* without cgroups the size of /tmp is the limit, see below */
    spec.limits.memory_bytes = 24u << 20;
    spec.limits.tmp_bytes = 256u << 20;
    fixture_run_spec(f, &spec,
        (const char *const[]){"/bin/sh", "-c",
            "exec 2>/dev/null; while :; do dd if=/dev/zero of=/tmp/$$.$((i=i+1)) bs=1M count=30; "
            "done",
            NULL},
        "/", &r);
    assert_true(r.exit.oom_killed);
    assert_false(r.exit.lost);
}

static void test_tmp_is_sized(void **state)
{
    static struct run r;
    SH(*state, &r,
        "dd if=/dev/zero of=/tmp/x bs=1M count=100 2>&1 | grep -c 'No space'; "
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>&1 | grep -c 'No space'");
    assert_string_equal(r.out, "1\n1\n");
}

static void test_rlimits(void **state)
{
    static struct run r;
    /* RLIMIT_FSIZE strikes with its own signal */
    PYTHON(*state, &r,
        "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "open('/workspace/big', 'wb').truncate(65 << 20)");
    assert_int_equal(r.exit.signal, 25);
    SH(*state, &r, "ulimit -n; ulimit -c; rm -f /workspace/big");
    assert_string_equal(r.out, "256\n0\n");
}

static int tests(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(test_init_cannot_be_robbed),
        cmocka_unit_test(test_init_cannot_be_slowed),
        cmocka_unit_test(test_init_cannot_be_signalled),
        cmocka_unit_test(test_no_descriptor_leaks),
        cmocka_unit_test(test_no_privileges),
        cmocka_unit_test(test_setuid_gains_nothing),
        cmocka_unit_test(test_mounts),
        cmocka_unit_test(test_host_is_not_visible),
        cmocka_unit_test(test_network),
        cmocka_unit_test(test_filtered_calls),
        cmocka_unit_test(test_fork_bomb),
        cmocka_unit_test(test_memory_hog),
        cmocka_unit_test(test_memory_full_of_files),
        cmocka_unit_test(test_tmp_is_sized),
        cmocka_unit_test(test_rlimits),
    };
    return cmocka_run_group_tests(all, fixture_setup, fixture_teardown);
}

int main(void)
{
    return fixture_main(tests);
}
