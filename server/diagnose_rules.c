/* SPDX-License-Identifier: MIT */
/* What programs and tools say when they fail, and what somebody who does not know the sandbox can
 * do about it. Data alone; t_diagnose.c feeds each concern what the tools really print. */
#include "server/diagnose_internal.h"

#include "shared/banned.h"

#define NO_NETWORK                                                                                 \
    "Runs have no network. Put what the program needs into the workspace or into /cache."
#define LONELY                                                                                     \
    "A run has a network of its own with nothing in it: a database or service must be started by " \
    "the run itself."
#define READ_ONLY "Only /workspace, /tmp, /dev/shm and /cache can be written to."
#define RELATIVE                                                                                   \
    "Relative paths start at the working directory, /workspace unless `cwd` says otherwise. Was "  \
    "the file synced (silt ignored PATH)?"
#define OF_PROJECT                                                                                 \
    "If '%s' is a file of your project, check that it was synced (silt ignored PATH says why "     \
    "not); if it is a package, "
#define PYTHON_MODULE                                                                              \
    OF_PROJECT "put it beside your program (python3 -m pip install --target . NAME, on your "      \
               "machine) or install it on the server: runs have no network."
#define NODE_MODULE                                                                                \
    OF_PROJECT "install it on your machine (npm install NAME) and let it be synced: a line "       \
               "!node_modules/ in .siltignore. Runs have no network."
#define GO_MODULE                                                                                  \
    "Run `go mod tidy` and `go mod vendor` on your machine, so that it is part of the workspace: " \
    "runs have no network."
#define HEADER                                                                                     \
    "If '%s' is yours, check that it was synced (silt ignored PATH says why not); else the "       \
    "server "                                                                                      \
    "needs the library's development package."
#define LARGE_FILE "The limit is the server's setting file_size."
#define MODE "Check its mode; the program is user 1000. " READ_ONLY
#define PROCESSES "Its limit of processes and threads is limits.pids."
#define MEMORY "Raise limits.memory_bytes (silt run --memory)."
#define SMALL_TMP                                                                                  \
    "/tmp and /dev/shm are small and count as memory; large files belong into /workspace or "      \
    "/cache."
#define QUOTA                                                                                      \
    "Delete something in /workspace or /cache; how much the sandbox may hold is the server's "     \
    "setting workspace_size."
#define SET_VARIABLE "Give it to the run: silt run -e %s=VALUE, --env-file FILE, or `env`."
#define COMMAND                                                                                    \
    "A run finds the programs of the server's /usr (or of its image): install it there, or put "   \
    "it into the workspace and name it by its path."
#define EXECUTABLE "Give it its executable bit (chmod +x) and a #! line, or name its interpreter."
#define CONFLICT                                                                                   \
    "Change the versions that the project asks for until they fit together; on your machine the "  \
    "package manager shows who asks for what."

#define MODULE(language, find, message, hint)                                                      \
    {                                                                                              \
        "missing_module", language, find, message, hint, .need = DIAGNOSE_ANY                      \
    }
#define VARIABLE(language, find)                                                                   \
    {                                                                                              \
        "missing_variable", language, find, "The environment variable %s is not set.",             \
            SET_VARIABLE, .need = DIAGNOSE_VARIABLE                                                \
    }
#define NETWORK(find)                                                                              \
    {                                                                                              \
        "no_network", NULL, find, "The program asked for a host name, but there is no network.",   \
            NO_NETWORK, .need = DIAGNOSE_ANY                                                       \
    }
#define UNREACHABLE(find)                                                                          \
    {                                                                                              \
        "no_network", NULL, find, "The program opened a connection, but there is no network.",     \
            NO_NETWORK, .need = DIAGNOSE_ANY                                                       \
    }
#define REFUSED(find)                                                                              \
    {                                                                                              \
        "connection_refused", NULL, find,                                                          \
            "Nothing listens at the address that the program connected to.", LONELY,               \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define MISSING(find)                                                                              \
    {                                                                                              \
        "missing_file", NULL, find, "The program opened '%s', which does not exist.", RELATIVE,    \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define FULL(find)                                                                                 \
    {                                                                                              \
        "no_space", NULL, find, "A file system of the run was full.", SMALL_TMP,                   \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define OVER(find)                                                                                 \
    {                                                                                              \
        "disk_quota", NULL, find, "The sandbox holds as much on disk as it may.", QUOTA,           \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define DENIED(find)                                                                               \
    {                                                                                              \
        "permission_denied", NULL, find, "The program was refused access to '%s'.", MODE,          \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define FIXED(find)                                                                                \
    {                                                                                              \
        "read_only", NULL, find, "The program wrote to '%s', which is read-only.", READ_ONLY,      \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define NO_COMMAND(find)                                                                           \
    {                                                                                              \
        "command_not_found", NULL, find, "There is no program '%s' in the container.", COMMAND,    \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define STARVED(find)                                                                              \
    {                                                                                              \
        "out_of_memory", NULL, find, "The program ran out of memory.", MEMORY,                     \
            .need = DIAGNOSE_ANY                                                                   \
    }
#define CROWDED(find, what)                                                                        \
    {                                                                                              \
        "too_many_processes", NULL, find, "The program could not start another " what ".",         \
            PROCESSES, .need = DIAGNOSE_ANY                                                        \
    }
#define UNPARSED(language, find, message)                                                          \
    {                                                                                              \
        "syntax_error", language, find, message, "", .by_version = true                            \
    }
#define REFUSED_SOURCE(language, find, message)                                                    \
    {                                                                                              \
        "compile_error", language, find, message, "", .need = DIAGNOSE_OWN, .by_version = true     \
    }
#define UNFIT(find, message, hint)                                                                 \
    {                                                                                              \
        "version_mismatch", NULL, find, message, hint, .by_version = true                          \
    }
#define CLASH(find, message)                                                                       \
    {                                                                                              \
        "dependency_conflict", NULL, find, message, CONFLICT, .need = DIAGNOSE_ANY                 \
    }

const struct diagnose_rule diagnose_rules[] = {
    /* versions and dependencies, as package managers tell */
    UNFIT("requires a different Python: %s", "A package asks for another Python: %s.", CONFLICT),
    UNFIT("notsup Required: {\"node\":\"%s\"", "A package asks for Node %s.", CONFLICT),
    UNFIT("notsup Required: %s", "A package asks for other versions of Node or npm: %s.", CONFLICT),
    UNFIT("note: module requires Go %s", "The module asks for Go %s.",
        "Lower the go line of go.mod, or install a newer Go on the server."),
    UNFIT("invalid go version '%s'", "This Go does not know the version '%s'.",
        "Write the go line of go.mod as MAJOR.MINOR, or install a newer Go on the server."),
    CLASH("ContextualVersionConflict: %s", "Installed packages do not fit together: %s."),
    CLASH("VersionConflict: %s", "An installed package has another version than asked for: %s."),
    CLASH("DistributionNotFound: The '%s' distribution was not found",
        "The package '%s' is asked for and is not there."),
    CLASH("ERROR: Cannot install %s because these package versions have conflicting dependencies",
        "Packages ask for versions that do not fit together: %s."),
    CLASH("ResolutionImpossible", "Packages ask for versions that do not fit together."),
    CLASH("ERESOLVE unable to resolve dependency tree", "npm found no versions that fit together."),
    CLASH("ERESOLVE could not resolve", "npm found no versions that fit together."),
    CLASH("inconsistent vendoring", "vendor/modules.txt and go.mod do not name the same versions."),
    CLASH("go: updates to go.mod needed", "go.mod does not name all that the program needs."),
    CLASH("missing go.sum entry for module providing package %s (",
        "go.sum has no entry for the package '%s'."),

    {"no_network", NULL, "No matching distribution found for %s",
        "pip could not reach a package index for %s.", NO_NETWORK, .need = DIAGNOSE_ANY},
    {"read_only", NULL, "error: externally-managed-environment",
        "pip may not install into the server's own Python.",
        "Put packages into the workspace (python3 -m pip install --target . NAME, on your "
        "machine): runs have no network.",
        .need = DIAGNOSE_ANY},

    /* modules, packages, headers, libraries */
    MODULE("python", "ModuleNotFoundError: No module named '%s'", "Python found no module '%s'.",
        PYTHON_MODULE),
    MODULE("python", "python3: No module named %s", "Python found no module '%s'.", PYTHON_MODULE),
    {"missing_module", "python", "ImportError: cannot import name '%s'",
        "Python found no '%s' in the package it was asked of.", PYTHON_MODULE, .by_version = true},
    MODULE("node", "Cannot find module '%s'", "Node found no module '%s'.", NODE_MODULE),
    MODULE("node", "Cannot find package '%s'", "Node found no package '%s'.", NODE_MODULE),
    {"missing_name", "node", "does not provide an export named '%s'", "The module exports no '%s'.",
        "", .by_version = true},
    MODULE("ruby", "cannot load such file -- %s (", "Ruby found no file '%s' to load.",
        OF_PROJECT "put it into the workspace: runs have no network."),
    MODULE("perl", "Can't locate %s in @INC", "Perl found no module '%s'.",
        OF_PROJECT "put it into the workspace: runs have no network."),
    MODULE("go", "no required module provides package %s;", "Go found no package '%s'.", GO_MODULE),
    MODULE("go", "cannot find package \"%s\"", "Go found no package '%s'.",
        "The folder has no go.mod: run `go mod init NAME`, `go mod tidy` and `go mod vendor` on "
        "your machine."),
    MODULE("go", "package %s is not in GOROOT", "Go found no package '%s'.",
        "Check the import path; a package of your own needs a go.mod at the module's root."),
    MODULE("go", "cannot find module providing package %s", "Go found no package '%s'.", GO_MODULE),
    MODULE(NULL, "fatal error: %s: No such file or directory", "The compiler found no header '%s'.",
        HEADER),
    MODULE(NULL, "ld: cannot find -l%s:", "The linker found no library '%s'.",
        "The server needs the library's development package."),

    /* environment variables */
    VARIABLE("python", "File \"<frozen os>\", line ~, in __getitem__\nKeyError: '%s'"),
    VARIABLE("python", "raise KeyError(key) from None\nKeyError: '%s'"),
    VARIABLE("shell", "%s: unbound variable"),
    VARIABLE("shell", "%s: parameter not set"),
    VARIABLE("shell", "%s: parameter null or not set"),
    VARIABLE(NULL, "nvironment variable '%s'"),
    VARIABLE(NULL, "nvironment variable \"%s\""),
    VARIABLE(NULL, "nvironment variable: %s"),
    VARIABLE(NULL, "%s environment variable"),
    VARIABLE(NULL, "%s must be set"),
    VARIABLE(NULL, "%s is not set"),
    VARIABLE(NULL, "%s not set"),

    /* network */
    UNREACHABLE("Network is unreachable"),
    UNREACHABLE("network is unreachable"),
    UNREACHABLE("ENETUNREACH"),
    UNREACHABLE("curl: (7) Failed to connect"),
    NETWORK("Temporary failure in name resolution"),
    NETWORK("Name or service not known"),
    NETWORK("Could not resolve host"),
    NETWORK("unable to resolve host address"),
    NETWORK("EAI_AGAIN"),
    NETWORK("getaddrinfo ENOTFOUND"),
    NETWORK("dial tcp: lookup "),
    REFUSED("ECONNREFUSED"),
    REFUSED("ConnectionRefusedError"),
    REFUSED("connection refused"),
    REFUSED("Connection refused"),

    /* disk */
    OVER("Disk quota exceeded"),
    OVER("disk quota exceeded"),
    OVER("EDQUOT"),
    FULL("No space left on device"),
    FULL("no space left on device"),
    FULL("ENOSPC"),

    /* programs that are not there, or not runnable */
    NO_COMMAND("    raise child_exception_type(errno_num, err_msg, "
               "err_filename)\nFileNotFoundError: [Errno 2] No such file or directory: '%s'"),
    NO_COMMAND("Error: spawn %s ENOENT"),
    NO_COMMAND("Error: spawnSync %s ENOENT"),
    NO_COMMAND("exec: \"%s\": executable file not found"),
    NO_COMMAND("make: %s: No such file or directory"),
    {"missing_interpreter", NULL, "bad interpreter",
        "The #! line of a script names a program that is not there.", COMMAND,
        .need = DIAGNOSE_ANY},
    {"missing_interpreter", NULL, "%s: cannot execute: required file not found",
        "The #! line of '%s' names a program that is not there.", COMMAND, .need = DIAGNOSE_ANY},
    {"missing_interpreter", NULL, "env: ‘%s’: No such file or directory",
        "The #! line of a script names '%s', which is not there.", COMMAND, .need = DIAGNOSE_ANY},
    {"command_not_found", NULL, "%s: command not found",
        "There is no program '%s' in the container.", COMMAND, .exit_code = 127},
    {"command_not_found", NULL, "[[: not found", "sh has no '[['.",
        "The script is for bash: begin it with #!/bin/bash.", .exit_code = 127},
    {"command_not_found", NULL, "%s: not found", "There is no program '%s' in the container.",
        COMMAND, .exit_code = 127},
    {"not_executable", NULL, "%s: Permission denied", "'%s' cannot be executed.", EXECUTABLE,
        .exit_code = 126},

    /* access */
    FIXED("[Errno 30] Read-only file system: '%s'"),
    FIXED("EROFS: read-only file system,~ '%s'"),
    FIXED("open %s: read-only file system"),
    FIXED("cannot create %s: Read-only file system"),
    FIXED("%s: Read-only file system"),
    {"read_only", NULL, "Read-only file system", "The program wrote to a place that is read-only.",
        READ_ONLY, .need = DIAGNOSE_ANY},
    DENIED("[Errno 13] Permission denied: '%s'"),
    DENIED("EACCES: permission denied,~ '%s'"),
    DENIED("open %s: permission denied"),
    DENIED("cannot create %s: Permission denied"),
    DENIED("cannot open %s: Permission denied"),
    DENIED("%s: Permission denied"),
    {"permission_denied", NULL, "[Errno 1] Operation not permitted",
        "The program asked for something that no run may do.",
        "Runs have no capabilities and a system call filter: mounts, raw sockets, other users and "
        "the like are refused.",
        .need = DIAGNOSE_ANY},
    {"permission_denied", NULL, "Permission denied", "The program was refused access to a file.",
        READ_ONLY, .need = DIAGNOSE_ANY},

    /* processes and memory */
    CROWDED("can't start new thread", "thread"),
    CROWDED("pthread_create failed", "thread"),
    CROWDED("Resource temporarily unavailable", "process"),
    CROWDED("Cannot fork", "process"),
    {"out_of_memory", "node", "JavaScript heap out of memory", "The program ran out of memory.",
        "Raise limits.memory_bytes, or the heap's own limit (node --max-old-space-size).",
        .need = DIAGNOSE_ANY},
    STARVED("MemoryError"),
    STARVED("std::bad_alloc"),
    STARVED("runtime: out of memory"),
    STARVED("Cannot allocate memory"),
    STARVED("cannot allocate memory"),
    STARVED("virtual memory exhausted"),

    {"file_too_large", NULL, "File too large", "The program made a file larger than a run may.",
        LARGE_FILE, .need = DIAGNOSE_ANY},
    {"file_too_large", NULL, "EFBIG", "The program made a file larger than a run may.", LARGE_FILE,
        .need = DIAGNOSE_ANY},
    {"stdin_at_end", NULL, "EOFError: EOF when reading a line",
        "The program read from its standard input, which was at its end.",
        "Give it input: `stdin` in the request, or a pipe to silt run.", .need = DIAGNOSE_ANY},

    /* syntax */
    UNPARSED(NULL, "IndentationError: %s", "The indentation of the file is not consistent: %s."),
    UNPARSED(NULL, "TabError: %s", "The file mixes tabs and blanks: %s."),
    UNPARSED("python", "SyntaxError: %s", "Python could not parse the file: %s."),
    UNPARSED("node", "SyntaxError: %s", "Node could not parse the file: %s."),
    UNPARSED("shell", "syntax error: %s", "The shell could not parse the script: %s."),
    UNPARSED("shell", "syntax error near unexpected token %s",
        "The shell could not parse the script, from %s on."),
    UNPARSED("shell", "Syntax error: %s", "The shell could not parse the script: %s."),
    UNPARSED("shell", "%s: bad substitution", "The shell could not expand '%s'."),
    UNPARSED("shell", "Bad substitution",
        "The shell could not expand a variable; the script may be for bash: begin it with "
        "#!/bin/bash."),
    UNPARSED("go", "syntax error: %s", "Go could not parse the file: %s."),
    UNPARSED(NULL, "*** missing separator",
        "make could not parse the Makefile: commands are indented by a tab."),

    /* files */
    MISSING("FileNotFoundError: [Errno 2] No such file or directory: '%s'"),
    MISSING("ENOENT: no such file or directory,~ '%s'"),
    MISSING("open %s: no such file or directory"),
    MISSING("cannot open '%s' for reading: No such file"),
    MISSING("cannot open %s: No such file"),
    MISSING("cannot access '%s': No such file or directory"),
    {"missing_file", NULL, "No rule to make target '%s'",
        "make has no file '%s' and no rule that makes it.", RELATIVE, .need = DIAGNOSE_ANY},
    MISSING("%s: No such file or directory"),

    /* builds */
    {"compile_error", NULL, "undefined reference to `%s'",
        "The linker found no definition of '%s'.",
        "Is the file that defines it in the same folder, or the library named (a Makefile can say "
        "-lNAME)?",
        .need = DIAGNOSE_ANY},
    {"compile_error", NULL, "multiple definition of `%s'",
        "The linker found several definitions of '%s'.", "", .need = DIAGNOSE_ANY},
    REFUSED_SOURCE("c", "error: %s", "The compiler refused the source: %s."),
    REFUSED_SOURCE("c++", "error: %s", "The compiler refused the source: %s."),
    REFUSED_SOURCE("c", "error: ", "The compiler refused the source."),
    REFUSED_SOURCE("c++", "error: ", "The compiler refused the source."),
    {"compile_error", NULL, "function main is undeclared in the main package",
        "The package has no function main.", "", .need = DIAGNOSE_ANY},

    /* programs that ended themselves */
    {"deadlock", "go", "all goroutines are asleep - deadlock!",
        "All goroutines waited for each other.", "", .need = DIAGNOSE_ANY},
    {"exception", "go", "panic: %s\n", "%s", "", .need = DIAGNOSE_OWN},
    REFUSED_SOURCE("go", ".go:", "Go could not build the program."),
    {"exception", NULL, "terminate called after throwing an instance of '%s'",
        "Nobody caught an exception of the type %s.", "", .need = DIAGNOSE_ANY},
    {"aborted", NULL, "Assertion `%s' failed", "An assertion failed: %s.", "",
        .need = DIAGNOSE_ANY},
    {"aborted", NULL, "free(): %s", "The program freed memory wrongly: %s.",
        "Build it with -g -fsanitize=address to see where.", .need = DIAGNOSE_ANY},
    {"aborted", NULL, "*** stack smashing detected ***",
        "The program wrote past the end of a local array.",
        "Build it with -g -fsanitize=address to see where.", .need = DIAGNOSE_ANY},
    {"crashed", NULL, "ERROR: AddressSanitizer: %s", "A memory error: %s.", "",
        .need = DIAGNOSE_ANY},
    {"exception", "python", "Traceback (most recent call last)", "An exception ended the program.",
        "", .need = DIAGNOSE_OWN, .by_version = true},
    {"exception", "node", "Error: %s\n    at ", "%s", "", .need = DIAGNOSE_OWN, .by_version = true},
    {"exception", "node", "\n    at ", "An exception ended the program.", "", .need = DIAGNOSE_OWN,
        .by_version = true},
};
const size_t diagnose_rule_count = sizeof(diagnose_rules) / sizeof(diagnose_rules[0]);
