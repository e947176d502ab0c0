/* SPDX-License-Identifier: MIT */
/* For doctor*.c only: judges (pure, facts → a row) and probes (machine → facts). */
#ifndef SERVER_DOCTOR_INTERNAL_H
#define SERVER_DOCTOR_INTERNAL_H

#include "server/doctor.h"

/* Fill text, and cost and mend where something is missing. false: this check says nothing here. */
typedef bool doctor_judge_fn(const struct doctor_facts *f, struct doctor_row *row);

doctor_judge_fn doctor_host_kernel, doctor_host_calls, doctor_host_seccomp, doctor_host_ptrace,
    doctor_host_namespaces, doctor_host_userns, doctor_host_user, doctor_host_cgroups,
    doctor_host_clock, doctor_host_descriptors; /* doctor_host.c */
doctor_judge_fn doctor_setup_runtime, doctor_setup_init, doctor_setup_container,
    doctor_setup_languages, doctor_setup_images, doctor_setup_data, doctor_setup_files,
    doctor_setup_copies, doctor_setup_quota, doctor_setup_port, doctor_setup_access;

bool doctor_ok(struct doctor_row *row, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* cost is a sentence; the command that mends it is told by doctor_mend. */
bool doctor_bad(struct doctor_row *row, enum doctor_verdict verdict, const char *cost,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));
bool doctor_mend(struct doctor_row *row, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Append ", name" to a list. What does not fit is left out. */
void doctor_list(char *list, size_t size, const char *name);

void doctor_probe_host(struct doctor_facts *f);                          /* doctor_probe.c */
void doctor_disk_probe(const char *path, struct doctor_disk *ret);       /* doctor_disk.c */
void doctor_trial_probe(const struct config *c, struct doctor_facts *f); /* doctor_trial.c */

#endif
