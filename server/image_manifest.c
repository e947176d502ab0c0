/* SPDX-License-Identifier: MIT */
#include "server/image_manifest.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "shared/path.h"

#include "shared/banned.h"

#define BLOBS "blobs/sha256/"
#define ENV_BYTES_MAX (64 * 1024)

static void json_freep(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

void image_parts_release(struct image_parts *parts)
{
    free(parts->layers);
    parts->layers = NULL;
}

const char *image_architecture(void)
{
    static const char *const names[][2] = {{"x86_64", "amd64"}, {"aarch64", "arm64"},
        {"armv7l", "arm"}, {"armv6l", "arm"}, {"i686", "386"}, {"ppc64le", "ppc64le"},
        {"s390x", "s390x"}, {"riscv64", "riscv64"}, {"loongarch64", "loong64"}};
    struct utsname host;
    if (uname(&host) < 0)
        return "";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(host.machine, names[i][0]) == 0)
            return names[i][1];
    }
    return "";
}

static int bad(struct err *e, const char *document, const char *what)
{
    return err_say(e, EINVAL, "the image is broken: its %s %s", document, what);
}

static json_t *parse(const char *text, size_t len)
{
    return json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
}

static const char *text_at(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

/* {"digest","size"} → where a layout has it. */
static int take_descriptor(json_t *from, struct image_blob *ret)
{
    const char *digest = text_at(from, "digest");
    json_t *size = json_object_get(from, "size");
    if (!image_digest_valid(digest) || !json_is_integer(size) || json_integer_value(size) < 0)
        return -EINVAL;
    *ret = (struct image_blob){.size = (uint64_t)json_integer_value(size)};
    (void)snprintf(ret->digest, sizeof ret->digest, "%s", digest);
    (void)snprintf(ret->name, sizeof ret->name, BLOBS "%s", digest + sizeof IMAGE_DIGEST_PREFIX - 1);
    return 0;
}

/* A name in a manifest.json. Those that are digests say what the content must be: BLOBS + digits,
 * DIGITS.json. */
static int take_name(const char *name, struct image_blob *ret)
{
    const char *base = path_base(name);
    size_t digits = strspn(base, "0123456789abcdef");
    *ret = (struct image_blob){.size = UINT64_MAX};
    if (path_check(name, strlen(name)) != PATH_FINE ||
        snprintf(ret->name, sizeof ret->name, "%s", name) >= (int)sizeof ret->name)
        return -EINVAL;
    bool named = strncmp(name, BLOBS, sizeof BLOBS - 1) == 0 && base == name + sizeof BLOBS - 1 &&
                 base[digits] == '\0';
    if (digits == 64 && (named || (base == name && strcmp(base + digits, ".json") == 0)))
        (void)snprintf(ret->digest, sizeof ret->digest, IMAGE_DIGEST_PREFIX "%.64s", base);
    return 0;
}

static int new_layers(struct image_parts *ret, size_t count, const char *document, struct err *e)
{
    if (count > IMAGE_LAYERS_MAX)
        return bad(e, document, "names more than 512 layers");
    ret->count = count;
    ret->layers = calloc(count + 1, sizeof *ret->layers);
    return ret->layers ? 0 : err_set(e, ENOMEM, "read an image");
}

int image_manifest_docker(const char *text, size_t len, struct image_parts *ret, struct err *e)
{
    static const char document[] = "manifest.json";
    CLEANUP(json_freep) json_t *list = parse(text, len);
    json_t *image = json_array_get(list, 0), *layers = json_object_get(image, "Layers"), *item;
    size_t i;
    if (!json_is_object(image))
        return bad(e, document, "is no list of images");
    if (json_array_size(list) > 1)
        return err_say(e, EINVAL,
            "the file holds %zu images: save the one that is wanted (docker save NAME:TAG)",
            json_array_size(list));
    if (!json_is_array(layers) || take_name(text_at(image, "Config"), &ret->config) < 0)
        return bad(e, document, "names no configuration and layers");
    int r = new_layers(ret, json_array_size(layers), document, e);
    if (r < 0)
        return r;
    json_array_foreach(layers, i, item)
    {
        const char *name = json_string_value(item);
        if (!name || take_name(name, &ret->layers[i]) < 0)
            return bad(e, document, "names a layer that is no file");
    }
    return 0;
}

/* A manifest for another machine, or none at all (build records say "unknown"). */
static bool is_foreign(json_t *descriptor, const char *architecture)
{
    json_t *platform = json_object_get(descriptor, "platform");
    const char *os = text_at(platform, "os"), *its = text_at(platform, "architecture");
    return (*os && strcmp(os, "linux") != 0) || (*its && strcmp(its, architecture) != 0);
}

static bool is_index(json_t *descriptor)
{
    const char *type = text_at(descriptor, "mediaType");
    return strstr(type, "image.index") || strstr(type, "manifest.list");
}

int image_manifest_index(const char *text, size_t len, const char *architecture,
    struct image_blob *ret, bool *ret_index, struct err *e)
{
    static const char document[] = "index.json";
    CLEANUP(json_freep) json_t *index = parse(text, len);
    json_t *list = json_object_get(index, "manifests"), *item, *chosen = NULL;
    size_t i, fitting = 0;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return bad(e, document, "lists no image");
    json_array_foreach(list, i, item)
    {
        if (is_foreign(item, architecture))
            continue;
        chosen = item;
        fitting++;
    }
    if (fitting == 0)
        return err_say(e, EINVAL, "the file has no image for this machine (linux/%s)", architecture);
    if (fitting > 1)
        return err_say(e, EINVAL,
            "the file holds %zu images: copy the one that is wanted into a layout of its own "
            "(skopeo copy oci:FROM:TAG oci:TO)",
            fitting);
    *ret_index = is_index(chosen);
    return take_descriptor(chosen, ret) < 0 ? bad(e, document, "names an image without a digest")
                                            : 0;
}

int image_manifest_oci(const char *text, size_t len, struct image_parts *ret, struct err *e)
{
    static const char document[] = "manifest";
    CLEANUP(json_freep) json_t *manifest = parse(text, len);
    json_t *layers = json_object_get(manifest, "layers"), *item;
    size_t i;
    if (!json_is_array(layers) ||
        take_descriptor(json_object_get(manifest, "config"), &ret->config) < 0)
        return bad(e, document, "names no configuration and layers by digest");
    int r = new_layers(ret, json_array_size(layers), document, e);
    if (r < 0)
        return r;
    json_array_foreach(layers, i, item)
    {
        if (take_descriptor(item, &ret->layers[i]) < 0)
            return bad(e, document, "names a layer without a digest");
    }
    return 0;
}

static int take_env(json_t *list, struct image *ret, struct err *e)
{
    json_t *item;
    size_t i, bytes = 0, count = json_array_size(list);
    if (count > IMAGE_ENV_MAX)
        return bad(e, "configuration", "has more than 256 variables");
    char **env = calloc(count + 1, sizeof *env);
    ret->env = env;
    if (!env)
        return err_set(e, ENOMEM, "read an image");
    json_array_foreach(list, i, item)
    {
        const char *entry = json_string_value(item);
        const char *equals = entry ? strchr(entry, '=') : NULL;
        if (!equals || equals == entry || (bytes += strlen(entry)) > ENV_BYTES_MAX)
            return bad(e, "configuration", "has a variable that is none");
        if (!(env[i] = strdup(entry)))
            return err_set(e, ENOMEM, "read an image");
    }
    return 0;
}

int image_manifest_config(const char *text, size_t len, const char *architecture,
    struct image_parts *parts, struct image *ret, struct err *e)
{
    static const char document[] = "configuration";
    CLEANUP(json_freep) json_t *config = parse(text, len);
    json_t *ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids"), *item;
    const char *its = text_at(config, "architecture"), *os = text_at(config, "os");
    size_t i;
    if (!json_is_array(ids) || json_array_size(ids) != parts->count)
        return bad(e, document, "does not name the same layers");
    if ((*its && strcmp(its, architecture) != 0) || (*os && strcmp(os, "linux") != 0))
        return err_say(e, EINVAL, "the image is for %.32s/%.32s, this machine is linux/%s", os, its,
            architecture);
    (void)snprintf(ret->architecture, sizeof ret->architecture, "%s", its);
    json_array_foreach(ids, i, item)
    {
        const char *id = json_string_value(item);
        struct image_blob *layer = &parts->layers[i];
        if (!id || !image_digest_valid(id))
            return bad(e, document, "names a layer without a digest");
        if (!*layer->digest) /* an unpacked tar, whose own digest this is */
            (void)snprintf(layer->digest, sizeof layer->digest, "%s", id);
    }
    json_t *env = json_object_get(json_object_get(config, "config"), "Env");
    return take_env(env, ret, e);
}
