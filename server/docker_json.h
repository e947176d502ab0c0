/* SPDX-License-Identifier: MIT */
/*
 * What siltd tells Docker Engine and what it reads from its answers: pure, any thread. Here stands
 * once what every container of this engine has in common: nothing but the workspace and the cache
 * can be written, there is no network, no capability, no way to gain one, and a label says whose it
 * is. Answers are foreign: every member that is used is checked for its kind and size.
 */
#ifndef SERVER_DOCKER_JSON_H
#define SERVER_DOCKER_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "server/container.h"

#define DOCKER_ID_BYTES 65 /* hexadecimal digits and NUL */
#define DOCKER_LABEL "silt.engine"
#define DOCKER_OWNER_BYTES 80
#define DOCKER_INIT_DIR "/dev/.silt" /* where `folder` appears inside, read-only */
#define DOCKER_LIST_MAX 1000

struct docker_container {
    const char *owner;  /* value of DOCKER_LABEL */
    const char *image;  /* an image's id */
    const char *folder; /* holds silt-init and the socket that it connects to; NULL: one that is
                           only looked into and never started */
    const struct container_spec *spec; /* NULL with folder */
    int oom_score_adj;
};
/* The body of POST /containers/create; malloc'd. -EINVAL: not UTF-8, -ENOMEM. */
int docker_json_create(const struct docker_container *c, char **ret) WARN_UNUSED;

/* The member of an object that is an id, lower-case hexadecimal ("sha256:" before it is kept).
 * -EINVAL: there is none. */
int docker_json_id(const char *text, const char *member, char *ret, size_t ret_size) WARN_UNUSED;
/* The ids in a list of containers whose label says `owner`, at most DOCKER_LIST_MAX. How many, or
 * -EINVAL. */
int docker_json_list(const char *text, const char *owner, char (*ret)[DOCKER_ID_BYTES]) WARN_UNUSED;
/* "message" of a failure as one printable line, "" if there is none. */
void docker_json_message(const char *text, char *ret, size_t ret_size);
/* State.OOMKilled of a container. */
bool docker_json_oom(const char *text);

struct docker_info {
    char version[64];
    bool memory, pids, cpu;
    const char *cgroups; /* "v1", "v2", "none" */
};
int docker_json_info(const char *text, struct docker_info *ret) WARN_UNUSED;

struct docker_image {
    char id[80];
    bool volumes; /* it declares some: programs could fill the disk through them */
};
int docker_json_image(const char *text, struct docker_image *ret) WARN_UNUSED;

/* The path of a cgroup in /proc/PID/cgroup's text: that of version 2, or of version 1's memory
 * controller. "" when it does not say, or not as seen from here. */
void docker_cgroup_path(const char *text, bool v2, char *ret, size_t ret_size);

#endif
