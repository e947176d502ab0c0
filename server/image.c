/* SPDX-License-Identifier: MIT */
#include "server/image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/io.h"

#include "shared/banned.h"

#define NOTE_BYTES_MAX (1024 * 1024)
#define NAMES_SHOWN 12

const char *const image_mount_points[] = {"dev", "proc", "sys", "tmp", "workspace", "cache", NULL};

bool image_name_valid(const char *name)
{
    size_t n = strspn(
        name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return n > 0 && n <= IMAGE_NAME_MAX && !name[n] && name[0] != '.' && name[0] != '-';
}

bool image_is_host(const char *name)
{
    return !name || !*name || strcmp(name, IMAGE_HOST) == 0;
}

/* ---- which there are */

void image_names_free(char **names)
{
    for (char **name = names; name && *name; name++)
        free(*name);
    free(names);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int image_names(const char *dir, char ***ret, struct err *e)
{
    char **names = calloc(IMAGE_COUNT_MAX + 1, sizeof *names);
    size_t count = 0;
    CLEANUP(dir_closep) DIR *d = dir ? opendir(dir) : NULL;
    if (!names)
        return err_set(e, ENOMEM, "list the images");
    for (struct dirent *entry; d && count < IMAGE_COUNT_MAX && (entry = readdir(d));) {
        struct stat st;
        if (!image_name_valid(entry->d_name) || image_is_host(entry->d_name) ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
            continue;
        if (!(names[count++] = strdup(entry->d_name))) {
            image_names_free(names);
            return err_set(e, ENOMEM, "list the images");
        }
    }
    qsort(names, count, sizeof *names, by_name);
    *ret = names;
    return 0;
}

int image_unknown(const char *dir, const char *name, struct err *e)
{
    CLEANUP(buf_release) struct buf list;
    char **names = NULL;
    struct image known;
    buf_init(&list, 2048);
    if (!dir)
        return err_refuse(e, PROTO_UNKNOWN_IMAGE,
            "there is no image '%.64s' on this server: its engine makes containers of one image, "
            "\"" IMAGE_HOST "\"",
            name);
    bool there = image_load(dir, name, &known, NULL) != -ENOENT;
    image_release(&known);
    if (there)
        return err_refuse(e, PROTO_UNKNOWN_IMAGE,
            "image '%.64s' cannot be a root: `siltd doctor` on the server says why", name);
    if (image_names(dir, &names, NULL) == 0) {
        for (size_t i = 0; names[i] && i < NAMES_SHOWN; i++)
            err_ignore(buf_addf(&list, "%s%s", i ? ", " : "", names[i]));
        if (names[0] && list.len > 0)
            err_ignore(buf_adds(&list, " and "));
    }
    image_names_free(names);
    bool valid = image_name_valid(name);
    return err_refuse(e, PROTO_UNKNOWN_IMAGE,
        "there is no image '%.64s' on this server; there is %.200s" IMAGE_HOST
        " (the server's own programs)%s%s%s",
        name, buf_str(&list), valid ? "; `siltd image import " : "", valid ? name : "",
        valid ? " FILE` on the server adds it" : "");
}

/* ---- notes */

void image_release(struct image *image)
{
    free(image->source);
    for (char **entry = image->env; entry && *entry; entry++)
        free(*entry);
    free(image->env);
    image->source = NULL;
    image->env = NULL;
}

const char *image_env(const struct image *image, const char *name)
{
    size_t len = strlen(name);
    for (char **entry = image->env; entry && *entry; entry++) {
        if (strncmp(*entry, name, len) == 0 && (*entry)[len] == '=')
            return *entry + len + 1;
    }
    return NULL;
}

static void json_freep(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

int image_note_write(const struct image *image, struct buf *ret)
{
    json_t *env = json_array();
    for (char **entry = image->env; entry && *entry; entry++)
        err_ignore(json_array_append_new(env, json_string(*entry)));
    CLEANUP(json_freep)
    json_t *note = json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "version",
        1, "format", image->format, "digest", image->digest, "architecture", image->architecture,
        "source", image->source, "bytes", (json_int_t)image->bytes, "entries",
        (json_int_t)image->entries, "layers", (json_int_t)image->layers, "left_out",
        (json_int_t)image->left_out, "imported_ns", (json_int_t)image->imported_ns, "env", env);
    CLEANUP(freep) char *text = note ? json_dumps(note, JSON_INDENT(1)) : NULL;
    return text ? buf_addf(ret, "%s\n", text) : -EINVAL;
}

static bool take_text(json_t *note, const char *name, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(note, name));
    return text && snprintf(out, size, "%s", text) < (int)size;
}

static bool take_number(json_t *note, const char *name, uint64_t *ret)
{
    json_t *value = json_object_get(note, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return true;
}

int image_note_read(const char *text, size_t len, struct image *ret)
{
    CLEANUP(json_freep) json_t *note = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    json_t *env = json_object_get(note, "env"), *item;
    size_t i;
    const char *source = json_string_value(json_object_get(note, "source"));
    if (!note || !source || !json_is_array(env) || json_array_size(env) > IMAGE_ENV_MAX ||
        json_integer_value(json_object_get(note, "version")) != 1 ||
        !take_text(note, "format", ret->format, sizeof ret->format) ||
        !take_text(note, "digest", ret->digest, sizeof ret->digest) ||
        !take_text(note, "architecture", ret->architecture, sizeof ret->architecture) ||
        !take_number(note, "bytes", &ret->bytes) || !take_number(note, "entries", &ret->entries) ||
        !take_number(note, "layers", &ret->layers) ||
        !take_number(note, "left_out", &ret->left_out) ||
        !take_number(note, "imported_ns", &ret->imported_ns))
        return -EINVAL;
    char **list = calloc(json_array_size(env) + 1, sizeof *list);
    free(ret->source);
    free(ret->env);
    ret->env = list;
    ret->source = strdup(source);
    if (!list || !ret->source)
        return -ENOMEM;
    json_array_foreach(env, i, item)
    {
        const char *entry = json_string_value(item);
        if (!entry || !strchr(entry, '=') || *entry == '=')
            return -EINVAL;
        if (!(list[i] = strdup(entry)))
            return -ENOMEM;
    }
    ret->noted = true;
    return 0;
}

int image_load(const char *dir, const char *name, struct image *ret, struct err *e)
{
    char path[PATH_MAX];
    struct stat st;
    CLEANUP(buf_release) struct buf text;
    *ret = (struct image){.noted = false};
    ret->source = strdup("");
    ret->env = calloc(1, sizeof *ret->env);
    buf_init(&text, 0);
    if (!ret->source || !ret->env)
        return err_set(e, ENOMEM, "look at an image");
    if (!image_name_valid(name) || snprintf(path, sizeof path, "%s/%s", dir, name) >= PATH_MAX ||
        lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_say(e, ENOENT, "there is no image '%.64s'", name);
    (void)snprintf(ret->name, sizeof ret->name, "%s", name);
    if (snprintf(path, sizeof path, "%s/" IMAGE_OURS "/notes/%s", dir, name) >= PATH_MAX)
        return err_set(e, ENAMETOOLONG, "look at image '%s'", name);
    int r = io_read_file(path, NOTE_BYTES_MAX, &text, e);
    if (r == -ENOENT)
        return 0;
    if (r == 0 && (r = image_note_read(buf_str(&text), text.len, ret)) < 0)
        return err_say(e, -r, "the note '%s' cannot be read: import the image again", path);
    return r;
}
