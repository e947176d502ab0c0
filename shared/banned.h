/* SPDX-License-Identifier: MIT */
/*
 * Calls that this project does not make, turned into compile errors. Included last by every .c
 * file (after the system headers, which may name them). Each has a better neighbour: snprintf or
 * struct buf for strings, num_* for numbers, container.c and one named place per use for programs.
 */
#ifndef SHARED_BANNED_H
#define SHARED_BANNED_H

/* glibc's headers make some of them macros, which cannot be poisoned. */
#undef alloca
#undef strcpy
#undef strcat
#undef strncpy
#undef strncat
#undef sprintf
#undef vsprintf
#pragma GCC poison strcpy strcat sprintf vsprintf strncpy strncat strtok strtok_r gets
#pragma GCC poison atoi atol atoll atof system popen alloca mktemp tmpnam tempnam

#endif
