/* SPDX-License-Identifier: MIT */
#include "server/image_command.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "server/image_import.h"
#include "server/image_json.h"
#include "server/image_users.h"
#include "shared/text.h"

#include "shared/banned.h"

static int add_json(struct buf *out, json_t *object)
{
    CLEANUP(freep) char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text ? buf_addf(out, "%s\n", text) : -ENOMEM;
}

static int add_size(struct buf *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"};
    double size = (double)bytes;
    size_t unit = 0;
    for (; size >= 1024 && unit < 3; unit++)
        size /= 1024;
    return buf_addf(out, "%.*f %s", unit ? 1 : 0, size, units[unit]);
}

/* ---- import */

static int describe(const struct image *image, struct buf *out)
{
    int r = buf_addf(out, "imported %s: ", image->name);
    r = r < 0 ? r : add_size(out, image->bytes);
    r = r < 0 ? r : buf_addf(out, ", %" PRIu64 " files and folders, from ", image->entries);
    r = r < 0 ? r : text_add_escaped(out, image->source);
    if (r == 0 && strcmp(image->format, "tar") == 0)
        r = buf_addf(out, " (a root file system, %.19s)\n", image->digest);
    else if (r == 0)
        r = buf_addf(out, " (%s image, %" PRIu64 " layer%s, %.19s)\n", image->format, image->layers,
            image->layers == 1 ? "" : "s", image->digest);
    if (r == 0 && image->left_out)
        r = buf_addf(out, "left out: %" PRIu64 " devices, FIFOs and sockets\n", image->left_out);
    return r < 0 ? r
                 : buf_addf(out, "use it: silt init --image %s, or {\"image\":\"%s\"} for a sandbox\n",
                       image->name, image->name);
}

static int import(const struct config *c, bool json, struct buf *out, struct err *e)
{
    struct image image = {.source = NULL};
    int r = image_import(
        c->images, c->words[1], c->words[2], c->free_bytes, &image, e);
    if (r == 0 && (json ? add_json(out, image_json(&image)) : describe(&image, out)) < 0)
        r = err_set(e, ENOMEM, "tell what was imported");
    image_release(&image);
    return r;
}

/* ---- list */

static int add_row(const struct image *image, struct buf *out)
{
    char time[TEXT_TIME_BYTES];
    int r = buf_addf(out, "%-24s  ", image->name);
    if (r < 0 || !image->noted)
        return r < 0 ? r : buf_adds(out, "laid there by hand\n");
    (void)text_time(image->imported_ns, time);
    CLEANUP(buf_release) struct buf size;
    buf_init(&size, 64);
    r = add_size(&size, image->bytes);
    r = r < 0 ? r : buf_addf(out, "%10s  %.10s %.8s  %-6s  %.19s  ", buf_str(&size), time, time + 11,
                        image->format, image->digest);
    r = r < 0 ? r : text_add_escaped(out, image->source);
    return r < 0 ? r : buf_addc(out, '\n');
}

static int list(const struct config *c, bool json, struct buf *out, struct err *e)
{
    char **names = NULL;
    json_t *items = json ? json_array() : NULL;
    int r = image_names(c->images, &names, e);
    for (char **name = names; r == 0 && *name; name++) {
        struct image image;
        int known = image_load(c->images, *name, &image, e);
        if (known == 0 && json)
            err_ignore(json_array_append_new(items, image_json(&image)));
        else if (known == 0)
            r = add_row(&image, out);
        else if (known != -ENOENT) /* removed meanwhile */
            r = known;
        image_release(&image);
    }
    if (r == 0 && json)
        r = add_json(out, json_pack("{s:O}", "items", items));
    else if (r == 0 && !names[0])
        r = buf_addf(out, "no images in %s: siltd image import NAME FILE adds one\n", c->images);
    json_decref(items);
    image_names_free(names);
    return r == -ENOMEM || r == -ENOBUFS ? err_set(e, -r, "list the images") : r;
}

/* ---- remove */

static int remove_one(const struct config *c, bool json, struct buf *out, struct err *e)
{
    int r = image_remove(c->images, c->words[1], image_users_ask, (void *)c, e);
    if (r < 0)
        return r;
    return json ? add_json(out, json_pack("{s:s}", "removed", c->words[1]))
                : buf_addf(out, "removed %s\n", c->words[1]);
}

static const struct command {
    const char *name, *usage;
    size_t words; /* with its name */
    int (*run)(const struct config *c, bool json, struct buf *out, struct err *e);
} commands[] = {
    {"import", "import NAME FILE", 3, import},
    {"list", "list", 1, list},
    {"remove", "remove NAME", 2, remove_one},
};

int image_command(const struct config *c, bool json, struct buf *out, struct err *e)
{
    const char *word = c->word_count ? c->words[0] : "";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, word) != 0)
            continue;
        if (c->word_count != commands[i].words)
            return err_say(e, EINVAL, "usage: siltd image %s [OPTIONS]", commands[i].usage);
        return commands[i].run(c, json, out, e);
    }
    return err_say(e, EINVAL,
        "usage: siltd image import NAME FILE, siltd image list, or siltd image remove NAME");
}
