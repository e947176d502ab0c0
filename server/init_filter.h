/* SPDX-License-Identifier: MIT */
/*
 * The system call filter of a container's program: what only serves to reach the kernel's less
 * trodden parts, another namespace or process 1 is refused. Part of silt-init.
 */
#ifndef SERVER_INIT_FILTER_H
#define SERVER_INIT_FILTER_H

/* Load it for the calling thread and everything it starts; needs no_new_privs. 0, or -1 and errno.
 */
int filter_load(void);

#endif
