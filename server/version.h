/* SPDX-License-Identifier: MIT */
/*
 * Does a runtime's version fit what a project asks for? What is asked is read from one line of the
 * project's own manifest, which is hostile text of bounded length: what is not understood has no
 * answer, and no answer is "fits". Pure, any thread.
 */
#ifndef SERVER_VERSION_H
#define SERVER_VERSION_H

#include <stdbool.h>
#include <stddef.h>

#define VERSION_SPEC_BYTES 128
#define VERSION_MANIFEST_MAX (64u * 1024) /* bytes of a manifest that are read */

/* A manifest that may hold a demand on the version of a language's runtime. */
struct version_source {
    const char *language, *file;
    /* Find the demand and its line (0: not known) in the file's text. */
    bool (*find)(const char *text, size_t len, char spec[VERSION_SPEC_BYTES], unsigned *ret_line);
    /* 1 fits, 0 does not, -EINVAL not understood. `have` is dotted numbers. */
    int (*fits)(const char *spec, const char *have);
    const char *what; /* of the file: "requires-python" */
};

extern const struct version_source version_sources[];
extern const size_t version_source_count;

/* PEP 440: ">=3.9, <4", "~=3.10", "==3.11.*". */
int version_fits_python(const char *spec, const char *have);
/* npm's ranges: "^18.2 || >=20 <22", "18.x", "18 - 20". */
int version_fits_node(const char *spec, const char *have);
/* Go: at least this. */
int version_fits_go(const char *spec, const char *have);
/* .python-version: this, as far as it goes. */
int version_fits_prefix(const char *spec, const char *have);

#endif
