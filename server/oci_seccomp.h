/* SPDX-License-Identifier: MIT */
/*
 * The rules of filter_rules.h as a seccomp profile in the form of the OCI runtime specification
 * (linux.seccomp; `docker run --security-opt seccomp=FILE` reads it, too): for those who want to
 * read what a program may not do, or to have it elsewhere. silt itself does not need it.
 *
 * libseccomp compares 64 bits of an argument where the kernel reads 32. So "is" compares by a mask,
 * and "is not" also refuses a value whose upper half is not zero: more than silt-init refuses,
 * never less.
 */
#ifndef SERVER_OCI_SECCOMP_H
#define SERVER_OCI_SECCOMP_H

#include <jansson.h>

/* A new reference; NULL without memory. */
json_t *oci_seccomp(void);

#endif
