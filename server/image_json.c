/* SPDX-License-Identifier: MIT */
#include "server/image_json.h"

#include <string.h>

#include "shared/text.h"

#include "shared/banned.h"

static json_t *text_or_null(const char *text)
{
    return text && *text ? json_string(text) : json_null();
}

static json_t *number_or_null(bool known, uint64_t value)
{
    return known ? json_integer((json_int_t)value) : json_null();
}

static json_t *env_object(const struct image *image)
{
    json_t *env = json_object();
    for (char **entry = image->env; entry && *entry; entry++) {
        size_t len = strcspn(*entry, "=");
        err_ignore(json_object_setn_new(env, *entry, len, json_string(*entry + len + 1)));
    }
    return env;
}

json_t *image_json(const struct image *image)
{
    char time[TEXT_TIME_BYTES];
    bool noted = image->noted;
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", image->name, "format",
        text_or_null(image->format), "digest", text_or_null(image->digest), "architecture",
        text_or_null(image->architecture), "source", text_or_null(image->source), "layers",
        number_or_null(noted, image->layers), "files", number_or_null(noted, image->entries),
        "bytes", number_or_null(noted, image->bytes), "left_out",
        number_or_null(noted, image->left_out), "imported_at",
        noted ? json_string(text_time(image->imported_ns, time)) : json_null(), "env",
        env_object(image));
}

json_t *image_json_host(void)
{
    const struct image host = {.name = IMAGE_HOST};
    return image_json(&host);
}
