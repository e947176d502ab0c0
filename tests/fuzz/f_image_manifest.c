/* SPDX-License-Identifier: MIT */
/* The documents of an image, and its note: the first byte says which reader gets the rest. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/image_manifest.h"
#include "shared/path.h"

#include "shared/banned.h"

/* What comes out is a name beneath the layout, or the reader is at fault. */
static void check(const struct image_blob *blob)
{
    if (path_check(blob->name, strlen(blob->name)) != PATH_FINE ||
        (*blob->digest && !image_digest_valid(blob->digest)))
        __builtin_trap();
}

static void read_parts(uint8_t kind, const char *text, size_t len)
{
    struct image_parts parts = {.layers = NULL};
    int r = kind ? image_manifest_docker(text, len, &parts, NULL)
                 : image_manifest_oci(text, len, &parts, NULL);
    if (r == 0) {
        check(&parts.config);
        for (size_t i = 0; i < parts.count; i++)
            check(&parts.layers[i]);
    }
    image_parts_release(&parts);
}

static void read_config(const char *text, size_t len)
{
    struct image_blob layers[2] = {{.name = "a"}, {.name = "b"}};
    struct image_parts parts = {.layers = layers, .count = 2};
    struct image image = {.source = NULL};
    if (image_manifest_config(text, len, "amd64", &parts, &image, NULL) == 0) {
        check(&layers[0]);
        check(&layers[1]);
    }
    image_release(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_blob blob;
    struct image image = {.source = NULL};
    bool index;
    if (size == 0)
        return 0;
    char *text = malloc(size);
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0] % 5) {
    case 0:
    case 1:
        read_parts(data[0] % 5, text, size - 1);
        break;
    case 2:
        if (image_manifest_index(text, size - 1, "amd64", &blob, &index, NULL) == 0)
            check(&blob);
        break;
    case 3:
        read_config(text, size - 1);
        break;
    default:
        err_ignore(image_note_read(text, size - 1, &image));
        image_release(&image);
    }
    free(text);
    return 0;
}
