/* SPDX-License-Identifier: MIT */
/*
 * What the files of warm share: warm.c (who waits for whom) and warm_make.c (one container, with a
 * program prepared in it). For these only.
 */
#ifndef SERVER_WARM_INTERNAL_H
#define SERVER_WARM_INTERNAL_H

#include "server/warm.h"

/* What is fixed when a container is made, beside the sandbox. */
struct warm_wish {
    struct container_limits limits;
    char image[WARM_IMAGE_BYTES]; /* "" = not known */
};

/* What will probably be run: a container_process without descriptors, in memory of its own. */
struct warm_program {
    struct container_process process;
    bool input; /* a pipe */
    const char *strings[];
};

/* A copy in one piece, or NULL. */
struct warm_program *warm_program_new(const struct container_process *from, bool input);

/* Close the pipes, if there are any; the container stays. */
void warm_got_close(struct warm_got *got);

/* Make one container, with the program prepared in it if that is not NULL. Counted in as a run, so
 * that the sandbox's end waits and its folders are there; when it is being deleted that is refused.
 * WARM_GOT_NOTHING when it cannot be made, which is logged. */
struct warm_got warm_make_one(struct container_engine *engine, struct sandbox *sb,
    const struct warm_wish *wish, const struct warm_program *program);

#endif
