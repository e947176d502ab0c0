/* SPDX-License-Identifier: MIT */
#include "agent/client_curl.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

#define LIBRARY "libcurl-gnutls.so.4"

/* GnuTLS reads these when it is loaded and when libcurl initialises it. */
static const char *const without_tls[] = {"GNUTLS_NO_IMPLICIT_INIT", "GNUTLS_NO_EXPLICIT_INIT"};

static const struct {
    const char *name;
    size_t at; /* in struct client_curl */
} functions[] = {
#define FUNCTION(name) {"curl_" #name, offsetof(struct client_curl, name)}
    FUNCTION(global_init),
    FUNCTION(global_cleanup),
    FUNCTION(easy_init),
    FUNCTION(easy_cleanup),
    FUNCTION(easy_setopt),
    FUNCTION(easy_getinfo),
    FUNCTION(easy_pause),
    FUNCTION(easy_strerror),
    FUNCTION(slist_append),
    FUNCTION(slist_free_all),
    FUNCTION(multi_init),
    FUNCTION(multi_cleanup),
    FUNCTION(multi_add_handle),
    FUNCTION(multi_remove_handle),
    FUNCTION(multi_perform),
    FUNCTION(multi_poll),
    FUNCTION(multi_info_read),
    FUNCTION(multi_strerror),
#undef FUNCTION
};

static int find_functions(void *library, struct client_curl *curl, struct err *e)
{
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function)
            return err_say(e, ENOENT, "%s has no function %s: install the package libcurl3-gnutls",
                LIBRARY, functions[i].name);
        memcpy((char *)curl + functions[i].at, &function, sizeof(function));
    }
    return 0;
}

int client_curl_load(struct client_curl *curl, bool tls, struct err *e)
{
    for (size_t i = 0; !tls && i < sizeof(without_tls) / sizeof(without_tls[0]); i++)
        (void)setenv(without_tls[i], "1", 1);
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    int r = library ? find_functions(library, curl, e)
                    : err_say(e, ENOENT, "%s: install the package libcurl3-gnutls", dlerror());
    if (r == 0 && curl->global_init(tls ? CURL_GLOBAL_DEFAULT : CURL_GLOBAL_NOTHING) != CURLE_OK)
        r = err_say(e, EIO, "libcurl cannot be initialised");
    for (size_t i = 0; !tls && i < sizeof(without_tls) / sizeof(without_tls[0]); i++)
        (void)unsetenv(without_tls[i]);
    if (library)
        (void)dlclose(library); /* nothing is unloaded */
    return r;
}
