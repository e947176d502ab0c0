/* SPDX-License-Identifier: MIT */
/*
 * What siltd and silt-init say to each other over a stream socket that silt-init inherits as
 * descriptor INIT_FD. Both ends come from one build and run on one machine, so integers are native.
 *
 * silt-init sends a struct init_report:
 *
 *     INIT_READY     it waits for a program
 *
 *     INIT_ENDED     the program has ended, and everything else was killed
 *
 * siltd sends a struct init_order:
 *
 *     INIT_PREPARE   like INIT_RUN, at most once and before it: a program that will probably be
 *                    wanted. It is started and held before it can see or do anything (init_hold.h)
 *
 *     INIT_STAND_BY  at most once, before INIT_RUN and instead of INIT_PREPARE: a process for the
 *                    program is made. It reads INIT_RUN itself, which must be the next order, so
 *                    that only the program's own start is left to be done
 *
 *     INIT_RUN       with body_len bytes (cwd, argv, environment, each ended by NUL) and three
 *                    descriptors (SCM_RIGHTS), or with none: those of INIT_PREPARE. If what it says
 *                    is what was prepared, that goes on; else a new program is started
 *
 *     INIT_SIGNAL    to the program's process group
 *
 *     INIT_ASIDE     like INIT_RUN, with descriptors, any number of times and only with INIT_AROUND:
 *                    a program beside the first one, whose end nobody is told of
 *
 * With the argument INIT_AROUND it is not in a container but around one, process 1 of a pid
 * namespace in which a runtime runs that has a kernel of its own and passes no descriptors on
 * (runsc). Then the program is the runtime's command line and no filter is loaded for it; all else
 * is the same, so the runtime's processes, too, end with the socket.
 *
 * With the argument INIT_CONNECT nobody could give it a descriptor (engine = docker): it connects
 * to INIT_SOCKET before anything else, where siltd takes one connection and no other.
 *
 * When the socket closes, silt-init kills everything in the container and exits. Until then it
 * stays, alone, after INIT_ENDED too: it keeps the cgroup, whose figures are wanted, and the
 * runtime's clean-up does not compete with the answer.
 */
#ifndef SERVER_INIT_H
#define SERVER_INIT_H

#include <stdint.h>

#define INIT_FD 3
#define INIT_AROUND "around"
#define INIT_CONNECT "connect"
#define INIT_SOCKET "/dev/.silt/sock"
#define INIT_BODY_MAX (1024 * 1024) /* bytes of cwd, argv and environment together */
#define INIT_STRINGS_MAX 8192       /* argv and environment entries together */

/* The variable in whose value, but not in its length, a prepared program may differ. */
#define INIT_MARK "SILT_RUN="

enum init_order_kind { INIT_RUN = 0x51170001, INIT_SIGNAL, INIT_PREPARE, INIT_ASIDE, INIT_STAND_BY };
enum init_report_kind { INIT_READY = 0x51180001, INIT_ENDED };

struct init_order {
    uint32_t kind;
    uint32_t signal;   /* SIGNAL */
    uint32_t tty;      /* RUN: stdout is to become the controlling terminal */
    uint32_t argc;     /* RUN: ≥ 1 */
    uint32_t envc;     /* RUN */
    uint32_t body_len; /* RUN */
};

struct init_report {
    uint32_t kind;
    int32_t exec_errno;          /* ENDED: 0 if the program was executed */
    int32_t status;              /* ENDED: as from wait(2) */
    uint32_t prepared;           /* ENDED: it was the program that had been prepared */
    uint64_t user_us, system_us; /* ENDED: of the program and the children it waited for */
    uint64_t peak_bytes;         /* ENDED: largest resident set of one of these */
};

#endif
