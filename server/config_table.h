/* SPDX-License-Identifier: MIT */
/*
 * The table behind server/config.h: for config.c (which fills a struct config from it) and
 * config_text.c (which prints it) only.
 */
#ifndef SERVER_CONFIG_TABLE_H
#define SERVER_CONFIG_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "server/config.h"

enum config_kind {
    CONFIG_TEXT,
    CONFIG_LIST, /* separated by commas or blanks */
    CONFIG_NUMBER,
    CONFIG_BYTES,    /* "64K", "1G" */
    CONFIG_DURATION, /* "60s", in milliseconds */
    CONFIG_LEVEL     /* error, warn, info, debug */
};

struct config_setting {
    const char
        *key; /* flag --data-dir, variable SILT_DATA_DIR and file key data_dir follow from it */
    const char *alias; /* a second environment variable, or NULL */
    enum config_kind kind;
    size_t offset;     /* in struct config */
    uint64_t min, max; /* of numbers */
    const char *value; /* default, in the form a user would write; NULL: computed by config.c */
    const char *default_text; /* how help names a computed default */
    const char *value_name;   /* "PATH" */
    const char *help;         /* one sentence without a full stop */
};

extern const struct config_setting config_settings[];
extern const size_t config_setting_count;

#define CONFIG_NAME_BYTES 64
/* "--data-dir" or "SILT_DATA_DIR" from a key, into out. */
const char *config_flag_name(const char *key, char out[CONFIG_NAME_BYTES]);
const char *config_env_name(const char *key, char out[CONFIG_NAME_BYTES]);

#endif
