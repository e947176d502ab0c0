/* SPDX-License-Identifier: MIT */
/*
 * Large files that are about to be removed, held open: the pages of a file are freed when its last
 * descriptor is closed, which takes 13 to 18 ms for 256 MiB. Whoever answers a request holds them,
 * and lets go of them when the answer is out. One thread.
 */
#ifndef SERVER_LATE_H
#define SERVER_LATE_H

#define LATE_MAX 8 /* further ones are freed at once, by their removal */

struct late {
    int fds[LATE_MAX];
    unsigned count;
};

/* Hold on to the file `name` in dir_fd if it is one of at least 1 MiB. late may be NULL. */
void late_hold(struct late *late, int dir_fd, const char *name);
void late_release(struct late *late);

#endif
