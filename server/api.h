/* SPDX-License-Identifier: MIT */
/*
 * The REST API: what each method and path does. The routes are a table in api.c, from which
 * /openapi.json and the README's table are made. Give api_gate and api_handle, with the api as ctx,
 * to http_server_start.
 *
 * Every refusal is {"error":{"code","message","retryable","request_id","details"?}} by one row of
 * shared/proto.h.
 */
#ifndef SERVER_API_H
#define SERVER_API_H

#include <stdbool.h>
#include <stdint.h>

#include "server/auth.h"
#include "server/config.h"
#include "server/container.h"
#include "server/exec.h"
#include "server/http.h"
#include "server/sandbox.h"

struct api;

struct api_config {
    const struct config *config; /* borrowed, as the rest */
    struct auth *auth;
    struct sandboxes *sandboxes;
    struct container_engine *engine;
    struct exec *exec;
};

int api_new(const struct api_config *config, struct api **ret, struct err *e) WARN_UNUSED;
/* Answers that are still given by threads of their own (streams, waits) come to their end; wait for
 * that. After exec_stop and before api_free. */
void api_stop(struct api *api);
void api_free(struct api *api);

bool api_gate(struct http_request *req, uint64_t *ret_max_body, void *ctx);
void api_handle(struct http_request *req, void *ctx);

/* For /metrics; set once the server runs. */
void api_set_server(struct api *api, struct http_server *server);

#endif
