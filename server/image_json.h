/* SPDX-License-Identifier: MIT */
/* An image as clients and scripts see it. Any thread. */
#ifndef SERVER_IMAGE_JSON_H
#define SERVER_IMAGE_JSON_H

#include <jansson.h>

#include "server/image.h"

/* New object, NULL: out of memory. */
json_t *image_json(const struct image *image);
/* The host's own programs, in the same form. */
json_t *image_json_host(void);

#endif
